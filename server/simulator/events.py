"""An event of a stream, whatever the dialect, and how a reply is told to go wrong in the middle of one."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from server.simulator.directives import Directives
from server.simulator.turn import Json

# What a frame is padded with, so that its length gives nothing away, as OpenAI pads it.
_PADDING = "kQ7vZ2mXc9LrT4bNw8HsJ1dYf6PgU3aE" * 2


class Event(NamedTuple):
    """One event: its type, which not every dialect has on the wire, and its fields."""

    type: str
    body: Json


def interrupted(
    events: Iterable[Event],
    directives: Directives,
    *,
    ends_content: Callable[[Event], bool],
    error: Callable[[], Iterable[Event]],
    failure: Callable[[], Iterable[Event]],
) -> Iterator[Event]:
    """The events up to where the directives say that it goes wrong, then those of the error or the failure.

    An error comes after `error_event_after` events. A failure comes in place of the first event that says
    "this content is whole".
    """
    for number, event in enumerate(events):
        if number == directives.error_event_after:
            yield from error()
            return
        if directives.fail and ends_content(event):
            yield from failure()
            return
        yield event


def padding(number: int, length: int) -> str:
    """What brings a length to a multiple of 16."""
    start = number % 32
    return _PADDING[start : start + 16 - length % 16]
