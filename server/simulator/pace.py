"""How often the streams of one simulator may write, so that many of them stay cheap."""

from collections.abc import Iterator
from contextlib import contextmanager

# A write costs a system call and a wake-up of its reader, far more than the event in it. At this rate a
# thousand streams of 50 events a second write five events at a time; a hundred never notice the limit.
_MAX_WRITES_PER_S = 10_000


class Pace:
    """Shares out the writes: the more streams are playing, the longer each pauses between two of its own."""

    def __init__(self) -> None:
        self._playing = 0

    @contextmanager
    def playing(self) -> Iterator[None]:
        self._playing += 1
        try:
            yield
        finally:
            self._playing -= 1

    @property
    def pause_s(self) -> float:
        return self._playing / _MAX_WRITES_PER_S
