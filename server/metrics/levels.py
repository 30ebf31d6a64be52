"""What rises and falls: looked at once a second, so that whoever raises it needs to tell nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of one process at one time."""

    runs: int = 0
    store_exchanges: int = 0
    waiters: Mapping[str, int] = field(default_factory=dict)
    """By the kind of response."""
    streams: Mapping[str, int] = field(default_factory=dict)
    """By what is streamed."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """Creating calls under way, by deployment."""
    cooling: Mapping[str, bool] = field(default_factory=dict)
    """By deployment."""
    tasks: int = 0
    """Of the event loop."""


class Tally(Counter[str]):
    """How many there are now, by kind."""

    @contextmanager
    def one(self, kind: str) -> Iterator[None]:
        """One more during the block."""
        self[kind] += 1
        try:
            yield
        finally:
            self[kind] -= 1
