"""What operators see: jobs of all owners, what each has lived through, and how many changed their status when."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from storage.connection import Connections, answered, together
from storage.keys import Shard, Shards, by_shard
from storage.records import TERMINAL
from storage.scripts import FIND, LIST_RESPONSES, READ_HASHES
from storage.statuses import parse_place, this_minute


class Mark(NamedTuple):
    """A place in a list that is sorted by creation, newest first: that of one response."""

    created_ms: int
    id: str


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay of a job with a worker."""

    attempt: int
    worker: str
    """The process that took it; empty if that did not say its name."""
    from_ms: int
    until_ms: int | None = None
    """When it was handed back, taken over or ended; None while it lasts."""
    reclaimed: bool = False
    """It began because the lease of the worker before had run out."""
    released: bool = False
    """It ended because the worker handed the job back."""


@dataclass(frozen=True, slots=True)
class Overview:
    """A response and its job, without what was asked and answered."""

    id: str
    owner: str
    status: str
    model: str
    stream: bool
    created_ms: int
    changed_ms: int
    """When it took its present status."""
    attempt: int
    last: int
    """The sequence number of the last event."""
    deployment: str
    metadata: bytes
    """What the client gave, JSON; or empty."""
    tokens: tuple[int, int] | None
    """Of the input and of the output, as far as the provider has told at the end."""
    error_code: str
    began_ms: int | None
    """When the provider's first event came."""
    stays: tuple[Stay, ...] = ()
    notes: dict[int, bytes] = field(default_factory=dict)
    """By attempt, what its worker noted about failed tries: JSON. Only `Overviews.of` reads it."""

    @property
    def mark(self) -> Mark:
        return Mark(self.created_ms, self.id)

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL


_FIELDS = (
    *("owner", "status", "model", "stream", "created_at", "queued_ms", "since", "attempt", "last", "deployment"),
    *("metadata", "tokens", "error_code", "began_ms", "life"),
)


class Overviews:
    """The overviews of all responses, from any process."""

    def __init__(self, connections: Connections, shards: int) -> None:
        self._client = connections.commands
        self._shards = Shards(shards)

    async def page(self, owner: str | None, before: Mark | None, most: int) -> tuple[list[Overview], Mark | None]:
        """Responses of an owner, or of all, created before a mark, newest first; and the mark of the next page.

        There are as many as `most` and some more, or fewer, because some have expired. The mark is None at the end.

        Raises:
            StoreError
        """
        shards = [self._shards.of(owner)] if owner is not None else list(self._shards)
        parts = await together(self._listed(shard, owner or "", before, most) for shard in shards)
        marks = sorted((mark for part in parts for mark in part), reverse=True)
        if len(marks) > most:
            last_ms = marks[most - 1].created_ms
            marks = [mark for mark in marks if mark.created_ms >= last_ms]
        found = await self._found([mark.id for mark in marks])
        more = len(marks) >= most
        return [one for one in found if one is not None], marks[-1] if more else None

    async def _listed(self, shard: Shard, owner: str, before: Mark | None, most: int) -> list[Mark]:
        words = await LIST_RESPONSES.run(
            self._client,
            whole=shard.whole,
            owners=shard.owners,
            owner=owner,
            owned_prefix=shard.owned(""),
            # A page has all that were created in the millisecond of its last one.
            before=f"({before.created_ms}" if before else "+inf",
            most=most,
        )
        return [Mark(int(at), name.decode()) for name, at in zip(words[::2], words[1::2], strict=True)]

    async def of_many(self, ids: Sequence[str]) -> list[Overview | None]:
        """Several of them, without their notes, in order; None for one that does not exist.

        Raises:
            StoreError
        """
        return await self._found(ids)

    async def of(self, response_id: str) -> Overview | None:
        """One of them, with its notes; None if it does not exist.

        Raises:
            StoreError
        """
        [found] = await self._found([response_id])
        if found is None or not found.stays:
            return found
        attempts = sorted({stay.attempt for stay in found.stays})
        record = self._shards.of(response_id).record(response_id)
        [row] = await FIND.run(self._client, records=[record], fields=[f"tries:{number}" for number in attempts])
        notes = {number: text for number, text in zip(attempts, row, strict=False) if text}
        return replace(found, notes=notes)

    async def _found(self, ids: Sequence[str]) -> list[Overview | None]:
        rows: dict[str, list[bytes | None]] = {}

        async def read(shard: Shard, mine: Sequence[str]) -> None:
            records = [shard.record(response_id) for response_id in mine]
            rows.update(zip(mine, await FIND.run(self._client, records=records, fields=_FIELDS), strict=True))

        await together(read(shard, mine) for shard, mine in by_shard(ids, self._shards.of).items())
        return [_overview(response_id, rows[response_id]) for response_id in ids]

    async def unfinished(self, owner: str) -> tuple[int, int]:
        """How many of an owner's responses are queued, and how many are in progress.

        Raises:
            StoreError
        """
        shard = self._shards.of(owner)
        async with answered(self._client):
            client: Any = self._client
            queued = await client.zcard(shard.queue(owner))
            owned, ended = await client.zcard(shard.owned(owner)), await client.zcard(shard.ended(owner))
        return queued, max(0, owned - ended - queued)

    async def tallies(self, owner: str | None, minutes: int) -> list[dict[str, int]]:
        """How many responses of an owner, or of all, took each status in each of the last minutes, oldest first.

        Raises:
            StoreError
        """
        now = this_minute()
        shards = [self._shards.of(owner)] if owner is not None else list(self._shards)
        numbers = range(now - minutes + 1, now + 1)
        parts = await together(
            READ_HASHES.run(self._client, hashes=[shard.tally(number) for number in numbers]) for shard in shards
        )
        sums: list[dict[str, int]] = [{} for _ in numbers]
        for part in parts:
            for tally, words in zip(sums, part, strict=True):
                for name, count in zip(words[::2], words[1::2], strict=True):
                    status, _, of = name.decode("utf-8", "replace").partition(" ")
                    if (owner is None or of == owner) and count.isdigit():
                        tally[status] = tally.get(status, 0) + int(count)
        return sums


_COUNT = re.compile(r"[0-9]{1,15}")
_LINE = re.compile(r"([0-9]{1,15}) (leased|reclaimed|released) ([0-9]{1,9})(?: (\S*))?")


def _overview(response_id: str, row: Sequence[bytes | None]) -> Overview | None:
    """Read one row; None where there is no record, or one that was broken by hand."""
    if not row:
        return None
    texts = {name: (value or b"").decode("utf-8", "replace") for name, value in zip(_FIELDS, row, strict=True)}
    if not (texts["status"] and texts["owner"]) or not _COUNT.fullmatch(texts["created_at"]):
        return None

    def number(name: str) -> int | None:
        return int(texts[name]) if _COUNT.fullmatch(texts[name]) else None

    created_ms = number("queued_ms") or int(texts["created_at"]) * 1000
    since = parse_place(texts["since"])
    ended_ms = since.ms if since and texts["status"] in TERMINAL else None
    tokens = [int(word) for word in texts["tokens"].split() if _COUNT.fullmatch(word)]
    return Overview(
        id=response_id,
        owner=texts["owner"],
        status=texts["status"],
        model=texts["model"],
        stream=texts["stream"] == "1",
        created_ms=created_ms,
        changed_ms=since.ms if since else created_ms,
        attempt=number("attempt") or 0,
        last=number("last") or 0,
        deployment=texts["deployment"],
        metadata=row[_FIELDS.index("metadata")] or b"",
        tokens=(tokens[0], tokens[1]) if len(tokens) == 2 else None,
        error_code=texts["error_code"],
        began_ms=number("began_ms"),
        stays=_stays(texts["life"], ended_ms),
    )


def _stays(life: str, ended_ms: int | None) -> tuple[Stay, ...]:
    """What `lived` in the prelude has written, line by line."""
    found: list[Stay] = []

    def close(at_ms: int, *, released: bool = False) -> None:
        if found and found[-1].until_ms is None:
            last = found[-1]
            found[-1] = Stay(last.attempt, last.worker, last.from_ms, at_ms, last.reclaimed, released)

    for line in life.splitlines():
        if match := _LINE.fullmatch(line):
            at_ms, what = int(match[1]), match[2]
            close(at_ms, released=what == "released")
            if what != "released":
                found.append(Stay(int(match[3]), match[4] or "", at_ms, reclaimed=what == "reclaimed"))
    if ended_ms is not None:
        close(ended_ms)
    return tuple(found)
