"""The statuses of a response, and the events that announce them."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    QUEUED = "queued"
    """Accepted and stored; no worker has begun."""
    IN_PROGRESS = "in_progress"
    """A worker has begun it at least once."""
    COMPLETED = "completed"
    """The provider completed it, and said so in a terminal event."""
    FAILED = "failed"
    """It ended with an error; `output` is what had arrived."""
    INCOMPLETE = "incomplete"
    """The provider stopped early and says why in `incomplete_details`."""
    CANCELLED = "cancelled"
    """A client, or the provider, cancelled it."""

    @property
    def terminal(self) -> bool:
        return self not in (Status.QUEUED, Status.IN_PROGRESS)


UNFINISHED = tuple(status for status in Status if not status.terminal)

OPENING = ("response.created", "response.queued", "response.in_progress")
"""Events 0, 1 and 2 of every log. An upstream's own are never logged."""

LAST_OPENING = len(OPENING) - 1
"""The sequence number of the last opening event. Every event after it came from a provider."""

TERMINAL_EVENTS = {
    "response.completed": Status.COMPLETED,
    "response.failed": Status.FAILED,
    "response.incomplete": Status.INCOMPLETE,
    # Not a standard type, but some upstreams may send it.
    "response.cancelled": Status.CANCELLED,
}


def terminal_event(status: Status) -> str:
    """The type of the event that ends a stream. A cancelled one ends with `response.failed`."""
    return "response.failed" if status is Status.CANCELLED else f"response.{status}"
