"""What endpoints of webhooks are owed, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from storage.statuses import StatusEntry

Hooks = Callable[[str, str], Sequence[str]]
"""The endpoints, besides those that are stored, that are owed the event of an end: by owner and status."""


def no_hooks(_owner: str, _status: str) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one endpoint, claimed for a try."""

    name: str
    endpoint: str
    entry: StatusEntry
    since_ms: int
    """When it was first owed."""
    attempt: int
    token: str
    sealed: str
    """What is needed to reach an endpoint that only this response has; else empty."""
    headers: bytes
    """Headers of the client that created the response, JSON, or empty. They hold the context of its trace."""
    stored: bytes
    """What is stored of the owner's endpoint; empty where there is none of this id."""


class Tried(StrEnum):
    """What became of a try."""

    TOLD = "told"
    AGAIN = "again"
    FAILED = "failed"
    """It is given up."""
    LATER = "later"
    """It could not be tried here."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a try went."""

    tried: Tried
    code: int = 0
    """The HTTP status of the answer; 0 where there was none."""
    latency_s: float = 0.0
    reason: str = ""
    again_s: float = 0.0
    """After how long to try again."""


@dataclass(frozen=True, slots=True)
class Pausing:
    """When an endpoint is only probed."""

    failures: int
    """After so many in a row."""
    for_s: float
    """Between two probes."""


@dataclass(frozen=True, slots=True)
class Past:
    """One of the last deliveries of an endpoint."""

    name: str
    status: str
    response_id: str
    attempts: int
    tried_ms: int
    outcome: str
    """`told` or `failed`; empty while it is still tried."""
    code: int
    """The HTTP status of the last try; 0 where there was none."""
    latency_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    failures: int = 0
    """In a row."""
    reason: str = ""
    paused: bool = False
