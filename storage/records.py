"""The data that crosses the border of this package: plain, frozen, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from storage.spent import Spent


class Cursor(NamedTuple):
    """A place in an event log: the last event that a reader has.

    A rerun writes the log again under the next epoch, and its event 7 is another one than the first run's event 7.
    So numbers compare within one epoch only. A reader at `Cursor(1, 7)` has nothing of epoch 2, and reads it from its
    start. `Cursor(2, 3)` is the later place, although its number is smaller.
    """

    epoch: int
    last: int


START = Cursor(0, -1)
"""The cursor of a reader that has no event yet."""

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
    """How long the response is kept after its end."""
    pinned: str = ""
    """The deployment it must run on (it continues a response that lives there), or empty."""
    previous: str = ""
    """The provider's own id of the response that it continues, or empty."""
    metadata: bytes = b""
    """The metadata that the client gave, JSON, for status events; or empty."""
    webhook: str = ""
    """An endpoint of this response alone: `<endpoint id> <sealed>`; or empty."""
    client_key: str = ""
    """The client's own key, sealed, or empty. The step that ends the response removes it."""
    headers: bytes = b""
    """Headers of the client that go to the provider, JSON, or empty."""
    request_id: str = ""
    """The id of the HTTP request that creates the response, for the log."""
    idempotency_key: str = ""
    body_digest: str = ""
    most_queued: int = 0
    """How many jobs of all owners together may be queued in its shard; 0: any number."""
    most_in_flight: int = 0
    """How many responses of this owner may be unfinished; 0: any number."""
    begin_within_s: float = 0.0
    """How long its job may wait for a worker. Of an owner's jobs, the one is leased first that ought to begin first."""


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response that has ended, as `keep` writes it. Its id must lie in its owner's shard."""

    id: str
    owner: str
    model: str
    created_at: int
    status: str
    deployment: str
    request: bytes
    snapshot: bytes
    ttl_s: float
    digits: str
    """What the ids of its items have in common."""


class Durability(StrEnum):
    """Where the writes of `create` and `finish` must have arrived before the store's answer counts as success."""

    NONE = "none"
    """In the memory of the server. When they reach its disk is decided by its `appendfsync`."""
    REPLICA = "replica"
    """In the memory of one replica as well: they survive a failover to that replica."""
    FSYNC = "fsync"
    """On the server's disk: they survive a loss of power. Needs Redis 7.2 or Valkey, with appendonly."""


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
    """For `BUSY` and `FULL`: after how many seconds a place is likely to be free."""


class Outcome(StrEnum):
    """The result of a step that only the holder of a job's lease may take."""

    OK = "ok"
    STALE = "stale"
    """The token is no longer valid: another worker has the job, or it went back to the queue. The run stops quietly."""
    OVER = "over"
    """The response already has a terminal status, and the first one wins. The run stops quietly."""
    GONE = "gone"
    """The record does not exist any more: it was deleted, expired or evicted."""
    GAP = "gap"
    """The batch does not start behind the end of the log. `Step.last` is that end: the run sends again from there."""


@dataclass(frozen=True, slots=True)
class Step:
    """The answer to `append` and `finish`."""

    outcome: Outcome
    last: int = -1


class Verdict(StrEnum):
    """What the worker that leased a job has to do with it."""

    RUN = "run"
    RESUME = "resume"
    """The provider still runs it in its own background: follow its stream from where the last worker stopped."""
    LOST = "lost"
    """Its worker died after a stream had begun, which a second run can't continue, or `max_attempts` are used up:
    fail it with `worker_lost`."""
    EXPIRED = "expired"
    """It waited longer than `max_age_s`: fail it with `timeout`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work one job. It ends at a deadline unless it is renewed before."""

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
    """The provider's own sequence number of the last event that was logged; -1: none was."""
    request: bytes
    webhook: str = ""
    """An endpoint of this response alone: `<endpoint id> <sealed>`; or empty."""
    client_key: str = ""
    """The client's own key, sealed, or empty. The step that ends the response removes it."""
    headers: bytes = b""
    """Headers of the client that go to the provider, JSON, or empty."""
    request_id: str = ""
    """The id of the HTTP request that created the response, for the log."""


@dataclass(frozen=True, slots=True)
class Leased:
    """The answer to `lease`."""

    at_ms: int
    """When the server ran the call, by its own clock."""
    lease: Lease | None = None
    stale: bool = False
    """A lease has run out, but the server ran the call later than `reclaim_until_ms` and took nothing: ask again."""
    set_aside: tuple[str, ...] = ()
    """Responses whose records can't be read, or whose end could not be written: no worker leases them again."""
    waited_s: float | None = None
    """How long the job was queued; None if it had been leased before."""
    reclaimed: bool = False
    """Another worker's lease on the job had run out."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What waits and what is worked on, in all shards."""

    queued: int
    """Jobs that wait for a worker."""
    leased: int
    """Jobs that a worker has."""
    endpoints_owed: int = 0
    """Webhook endpoints that must still be told something."""
    job_overdue_s: float = 0.0
    """How long ago the first of the queued jobs ought to have begun; 0 if none is late."""
    delivery_overdue_s: float = 0.0
    """How long ago the first of the deliveries was due that no process has begun; 0 if none is late."""
    memory_bytes: int = 0
    """What the store uses; of a cluster, the primary that is fullest."""
    memory_limit_bytes: int = 0
    """What that server may use; 0 if it has no limit of its own."""


@dataclass(frozen=True, slots=True)
class Append:
    """One batch for one log: frames `first`…`last`, and fields to set on the record."""

    lease: Lease
    first: int
    last: int
    frames: bytes
    fields: dict[str, str | bytes] = field(default_factory=dict)
    number: int = 1
    """Batches of one lease are counted from 1. A batch that is repeated keeps its number, so the store can tell."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a response: its last batch (with the one terminal frame) and its final object."""

    append: Append
    status: str
    snapshot: bytes
    abandon: bool = False
    """Whether to cancel the provider's own background run, if there is one, because it may still go on."""
    spent: Spent | None = None
    """What it has used; None if the provider has not told at its end. Then what its record says of it counts."""


@dataclass(frozen=True, slots=True)
class UpstreamCancel:
    """A provider's background run that is no longer wanted. It is kept until the provider has been told."""

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
    format: int = 1
    """See `formats.py`."""

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
    """The response object of the upstream's first event, JSON, or empty."""
    snapshot: bytes = b""
    """The final object, JSON; empty until the response has ended, and after a cancel."""
    batches: tuple[Batch, ...] = ()
    """A page of the batches behind the given cursor, oldest first. `read` leaves it empty where there is a snapshot."""

    @property
    def reaches_end(self) -> bool:
        """Whether this page reaches the end of the log."""
        return not self.batches or self.batches[-1].cursor == self.record.cursor


class CancelOutcome(StrEnum):
    CANCELLED = "cancelled"
    OVER = "over"
    """The response had ended before: nothing changed."""
    GONE = "gone"
