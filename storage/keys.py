"""Every key and channel that Pollux uses: its name, its meaning and its time to live. The only place.

| key | type | meaning | time to live |
|---|---|---|---|
| `pollux:{n}:record:<id>` | hash | the record of a response, see `records.py` | from the end on: `ttl` |
| `pollux:{n}:log:<id>` | stream | event log: `<epoch>-<last>` → `f`: frames, see `packing.py` | as the record |
| `pollux:{n}:queue:<owner>` | zset | queued jobs of one owner, by when (ms) they ought to begin | none; empty is gone |
| `pollux:{n}:rotation` | zset | owners that have queued jobs, by turn | none; empty is gone |
| `pollux:{n}:leases` | zset | leased jobs, by deadline (ms, the server's clock) | none; empty is gone |
| `pollux:{n}:grant:<token>` | string | the job that a lease token got: a repeated `lease` gets it again | a lease |
| `pollux:{n}:upstream_cancels` | zset | `<since> <deployment> <provider's id>`, by next try | none; empty is gone |
| `pollux:{n}:feed` | stream | each change of a status, see `feed.py`; also a channel | `feed_retention_s` |
| `pollux:{n}:endpoints:<owner>` | hash | an owner's webhook endpoints: id → JSON | none: until they are deleted |
| `pollux:{n}:endpoints_due` | zset | endpoints that are owed something, by next try; also a channel | as `due` |
| `pollux:{n}:due:<endpoint>` | zset | what it is owed: `<endpoint> <status> <id>`, by next try | `DELIVERY_TTL_MS` |
| `pollux:{n}:delivery:<name>` | hash | one of these, and what became of its tries | `DELIVERY_TTL_MS` |
| `pollux:{n}:delivered:<endpoint>` | list | the last ones that were delivered, or given up | `DELIVERY_TTL_MS` |
| `pollux:{n}:health:<endpoint>` | hash | its failures in a row | `DELIVERY_TTL_MS` |
| `pollux:{n}:paused:<endpoint>` | string | it fails again and again: it is only probed | `DELIVERY_TTL_MS` |
| `pollux:{n}:owned:<owner>` | zset | ids of one owner's responses, by creation (ms) | `INDEX_TTL_MS` |
| `pollux:{n}:ended:<owner>` | zset | those of `owned` that ended, by time of expiry (ms) | `INDEX_TTL_MS` |
| `pollux:{n}:owners` | zset | owners that have created responses, by when the last one was (ms) | `INDEX_TTL_MS` |
| `pollux:{n}:tally:<minute>` | hash | changes of status in a minute: `<status> <owner>` → how many | `TALLY_TTL_MS` |
| `pollux:{n}:usage:<day>:<owner>` | hash | an owner's usage: `<measure> <model>` → a sum | `usage_retention_s` |
| `pollux:{n}:usage_owners` | zset | owners that have used anything, by when (ms) that can be dropped | as `usage` |
| `pollux:{n}:counted:<token>` | string | what was counted under this token counts no more | given with the token |
| `pollux:{n}:requests:<owner>` | zset | creates of one owner that a limit counted, by time (ms) | a minute |
| `pollux:{n}:idempotency:<owner>:<digest>` | hash | `id`, `body`: what it started | `IDEMPOTENCY_TTL_MS` |
| `pollux:{n}:kept:<owner>:<digits>` | string | id of a kept response, by the digits in its items' ids | as the record |
| `pollux:{n}:tombstone:<id>` | string | token of its `delete`, for repeats of it and of `create` | a minute |
| `pollux:{n}:whole` | none | never there: see `Shard.whole` | |
| `pollux:{0}:settings` | hash | `shards` and the generated `id_secret`: made once; `format`: see `formats.py` | none |
| `pollux:{0}:processes` | hash | what each process says of itself, see `processes.py` | `PROCESSES_TTL_MS` |
| `pollux:{0}:checkup` | any | what `pollux doctor` tries its rights with; also a channel | a second |

| channel | says |
|---|---|
| `pollux:{n}:moved:<id>` | the response moved to `<epoch>-<last>`, which is not the end |
| `pollux:{n}:over:<id>` | it ended, at `<epoch>-<last>`, or is `gone`. Most waiters subscribe to this one only |
| `pollux:{n}:wake` | a job was queued: an idle worker may lease |
| `pollux:{n}:revoked` | this id was cancelled or deleted: the worker that runs it stops |

`{n}` is a hash tag: Redis Cluster puts all keys with one tag into one slot, so that one script can use them together.
n = crc32(owner) mod shards; an id is drawn until its own crc32 gives the same n.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Self, TypeVar
from zlib import crc32

T = TypeVar("T")

IDEMPOTENCY_TTL_MS = 24 * 3600 * 1000
# Each create and each end of a response sets this time again, so an index expires only before the responses that it
# names if one of them runs for a month while its owner does nothing else.
INDEX_TTL_MS = 30 * 24 * 3600 * 1000
TOMBSTONE_TTL_MS = 60_000
DELIVERY_TTL_MS = 4 * 24 * 3600 * 1000
"""A day longer than deliveries are tried."""

TALLY_TTL_MS = 2 * 3600 * 1000
PROCESSES_TTL_MS = 3600 * 1000

SETTINGS = "pollux:{0}:settings"
PROCESSES = "pollux:{0}:processes"
CHECKUP = "pollux:{0}:checkup"


def shard_of(text: str, shards: int) -> int:
    """The number of the shard of an owner, or of a response id."""
    return crc32(text.encode()) % shards


def draw_id(new_id: Callable[[], str], owner: str, shards: int) -> str:
    """Draw ids until one lies in its owner's shard; that takes `shards` draws on average."""
    wanted = shard_of(owner, shards)
    while shard_of(drawn := new_id(), shards) != wanted:
        pass
    return drawn


@dataclass(frozen=True)
class Shard:
    """The names of all keys and channels in shard `n`."""

    n: int

    @cached_property
    def prefix(self) -> str:
        return f"pollux:{{{self.n}}}:"

    @cached_property
    def whole(self) -> str:
        """A key that nobody writes. A script names it that uses keys which it can't name in advance.

        On a Cluster, while a slot is being moved, a script would find some of those keys and miss others. A server
        refuses a call with TRYAGAIN if one of the keys that it names is not there, so it refuses this one until the
        whole slot is in one place again.
        """
        return f"{self.prefix}whole"

    def record(self, response_id: str) -> str:
        return f"{self.prefix}record:{response_id}"

    def log(self, response_id: str) -> str:
        return f"{self.prefix}log:{response_id}"

    def queue(self, owner: str) -> str:
        return f"{self.prefix}queue:{owner}"

    @cached_property
    def rotation(self) -> str:
        return f"{self.prefix}rotation"

    @cached_property
    def leases(self) -> str:
        return f"{self.prefix}leases"

    def grant(self, token: str) -> str:
        return f"{self.prefix}grant:{token}"

    @cached_property
    def upstream_cancels(self) -> str:
        return f"{self.prefix}upstream_cancels"

    @cached_property
    def feed(self) -> str:
        return f"{self.prefix}feed"

    def endpoints(self, owner: str) -> str:
        return f"{self.prefix}endpoints:{owner}"

    @cached_property
    def endpoints_due(self) -> str:
        return f"{self.prefix}endpoints_due"

    def due(self, endpoint: str) -> str:
        return f"{self.prefix}due:{endpoint}"

    def delivery(self, name: str) -> str:
        return f"{self.prefix}delivery:{name}"

    def delivered(self, endpoint: str) -> str:
        return f"{self.prefix}delivered:{endpoint}"

    def health(self, endpoint: str) -> str:
        return f"{self.prefix}health:{endpoint}"

    def paused(self, endpoint: str) -> str:
        return f"{self.prefix}paused:{endpoint}"

    def owned(self, owner: str) -> str:
        return f"{self.prefix}owned:{owner}"

    def ended(self, owner: str) -> str:
        return f"{self.prefix}ended:{owner}"

    @cached_property
    def owners(self) -> str:
        return f"{self.prefix}owners"

    def tally(self, minute: int) -> str:
        return f"{self.prefix}tally:{minute}"

    def requests(self, owner: str) -> str:
        return f"{self.prefix}requests:{owner}"

    def usage(self, day: date, owner: str) -> str:
        return f"{self.prefix}usage:{day.isoformat()}:{owner}"

    @cached_property
    def usage_owners(self) -> str:
        return f"{self.prefix}usage_owners"

    def counted(self, token: str) -> str:
        return f"{self.prefix}counted:{token}"

    def idempotency(self, owner: str, key: str) -> str:
        # Hashed, because a client's key may have any length and contain any bytes.
        return f"{self.prefix}idempotency:{owner}:{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()}"

    def kept(self, owner: str, digits: str) -> str:
        return f"{self.prefix}kept:{owner}:{digits}"

    def tombstone(self, response_id: str) -> str:
        return f"{self.prefix}tombstone:{response_id}"

    def moved(self, response_id: str) -> str:
        return f"{self.prefix}moved:{response_id}"

    def over(self, response_id: str) -> str:
        return f"{self.prefix}over:{response_id}"

    @cached_property
    def wake(self) -> str:
        return f"{self.prefix}wake"

    @cached_property
    def revoked(self) -> str:
        return f"{self.prefix}revoked"


class Shards(tuple[Shard, ...]):
    """All shards of a store, in order."""

    __slots__ = ()

    def __new__(cls, count: int) -> Self:
        return super().__new__(cls, map(Shard, range(count)))

    def of(self, text: str) -> Shard:
        """The shard of an owner, or of a response id."""
        return self[shard_of(text, len(self))]


def by_shard(items: Iterable[T], shard_of: Callable[[T], Shard]) -> dict[Shard, list[T]]:
    """Group items by their shard, keeping their order: a script can only use the keys of one shard."""
    found: dict[Shard, list[T]] = {}
    for item in items:
        found.setdefault(shard_of(item), []).append(item)
    return found
