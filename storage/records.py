"""The data that crosses the border of this package: plain, frozen, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Cursor(NamedTuple):
    """A place in an event log: the last event that somebody has. Only equal or different, across epochs."""

    epoch: int
    last: int


START = Cursor(0, -1)
"""Before everything."""

TERMINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})


@dataclass(frozen=True, slots=True)
class NewResponse:
    """All that `create` writes, in one step."""

    id: str
    owner: str
    model: str
    created_at: int
    stream: bool
    request: bytes
    opening: bytes
    """The frames of events 0 and 1."""
    started: bytes
    """The frame of event 2, which the first lease appends."""
    ttl_s: float
    """How long it is kept after its end."""
    pinned: str = ""
    """The deployment it must run on (it continues a response that lives there), or empty."""
    previous: str = ""
    """The provider's own id of the response it continues, or empty."""
    headers: bytes = b""
    """Headers of the client that go to the provider, JSON, or empty."""
    request_id: str = ""
    """Of the request that creates it, for the log."""
    idempotency_key: str = ""
    body_digest: str = ""
    most_queued: int = 0
    """How many jobs may be queued, of all owners in its shard; 0: any number."""
    most_in_flight: int = 0
    """How many responses of this owner may be unfinished; 0: any number."""


class Durability(StrEnum):
    """Where a create and an end must have arrived before they are acknowledged."""

    NONE = "none"
    """In the memory of the server; on its disk as `appendfsync` says."""
    REPLICA = "replica"
    """In the memory of one replica as well: survives a failover to it."""
    FSYNC = "fsync"
    """On the server's disk: survives a loss of power. Needs Redis 7.2 or Valkey, with appendonly."""


class CreateOutcome(StrEnum):
    CREATED = "created"
    REPLAYED = "replayed"
    """The idempotency key already started a response with the same body: its id is returned."""
    REUSED = "reused"
    """The idempotency key already started a response with another body: nothing was created."""
    BUSY = "busy"
    """The owner has `most_in_flight` unfinished responses: nothing was created."""
    FULL = "full"
    """There are `most_queued` jobs in the queue: nothing was created."""


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to `create`."""

    outcome: CreateOutcome
    id: str = ""
    """The new response, or the one that the idempotency key started."""
    retry_after_s: int = 0
    """When a place is likely to be free, where there is none."""


class Outcome(StrEnum):
    """What a fenced step of a leased job came to."""

    OK = "ok"
    STALE = "stale"
    """The token is no longer the lease's: somebody else has the job, or it was cancelled. Stop quietly."""
    OVER = "over"
    """The status is terminal already: first one wins. Stop quietly."""
    GONE = "gone"
    """There is no such record: deleted, expired or evicted."""
    GAP = "gap"
    """The log ends earlier than the step supposes: `last` tells where. Send again from there."""


@dataclass(frozen=True, slots=True)
class Step:
    """The answer to `append` and `finish`."""

    outcome: Outcome
    last: int = -1


class Verdict(StrEnum):
    """What is to be done with a leased job."""

    RUN = "run"
    RESUME = "resume"
    """The provider runs it in its own background: go on with its stream where the last worker stopped."""
    LOST = "lost"
    """Its worker died when a second run could not follow, or too often: fail it with `worker_lost`."""
    EXPIRED = "expired"
    """It waited longer than `max_age_s`: fail it with `timeout`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work one job, until the deadline unless renewed."""

    id: str
    token: str
    owner: str
    verdict: Verdict
    epoch: int
    attempt: int
    last: int
    stream: bool
    created_at: int
    model: str
    pinned: str
    """The deployment that it must run on, or empty."""
    previous: str
    ran_on: str
    """The deployment whose run is to be resumed, or empty."""
    provider_id: str
    upstream_last: int
    """The provider's own number of the last event that was logged; -1: none."""
    request: bytes
    headers: bytes = b""
    """Headers of the client that go to the provider, JSON, or empty."""
    request_id: str = ""
    """Of the request that created it, for the log."""


@dataclass(frozen=True, slots=True)
class Leased:
    """The answer to `lease`."""

    at_ms: int
    """When, by the server's clock."""
    lease: Lease | None = None
    stale: bool = False
    """There is something to reclaim, but the server ran the call later than `reclaim_until_ms`: ask again."""
    set_aside: tuple[str, ...] = ()
    """Responses whose records can't be read, or whose end could not be written: nobody tries them again."""


@dataclass(frozen=True, slots=True)
class Append:
    """One batch for one log: frames `first`…`last`, and fields to set on the record."""

    lease: Lease
    first: int
    last: int
    frames: bytes
    fields: dict[str, str | bytes] = field(default_factory=dict)
    number: int = 1
    """Of the batches of its lease, from 1: a repeat has the same number, and what comes later a higher one."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a response: its last batch (with the one terminal frame) and its final object."""

    append: Append
    status: str
    snapshot: bytes
    abandon: bool = False
    """The provider's own background run, if there is one, may still go on: it is to be cancelled."""


@dataclass(frozen=True, slots=True)
class UpstreamCancel:
    """A provider's background run that nobody wants any more, until the provider knows."""

    since_ms: int
    deployment: str
    provider_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about a response without its events."""

    id: str
    owner: str
    status: str
    model: str
    created_at: int
    stream: bool
    cursor: Cursor
    ran_on: str = ""
    """The deployment that answered, once one did."""
    provider_id: str = ""

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Batch:
    """One entry of an event log: consecutive frames, bytes ready to send; `cursor.last` is the last of them."""

    cursor: Cursor
    frames: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """One atomic look at a response."""

    record: Record
    request: bytes = b""
    base: bytes = b""
    """The response object that the upstream began with, JSON, or empty."""
    snapshot: bytes = b""
    """The final object, JSON, where one was stored."""
    batches: tuple[Batch, ...] = ()
    """A page of the batches behind the given cursor, oldest first; empty where the snapshot says it all."""

    @property
    def reaches_end(self) -> bool:
        """Whether this page reaches the end of the log: nothing lies behind it."""
        return not self.batches or self.batches[-1].cursor == self.record.cursor


class CancelOutcome(StrEnum):
    CANCELLED = "cancelled"
    OVER = "over"
    """It had ended already: nothing changed."""
    GONE = "gone"
