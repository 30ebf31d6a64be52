"""What clients do with responses: create, read, list, cancel, delete."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from storage.connection import Connections, answered, together
from storage.errors import StoreError
from storage.formats import FORMAT, check_record, parse_format
from storage.keys import (
    IDEMPOTENCY_TTL_MS,
    INDEX_TTL_MS,
    TOMBSTONE_TTL_MS,
    Shard,
    Shards,
    by_shard,
)
from storage.packing import unpack
from storage.records import (
    START,
    Batch,
    CancelOutcome,
    Created,
    CreateOutcome,
    Cursor,
    KeptResponse,
    NewResponse,
    Reading,
    Record,
)
from storage.scripts import CANCEL, CREATE, DELETE, FIND, KEEP, READ
from storage.statuses import Place, StatusEntry, parse_place
from storage.terms import Terms

_FIELDS = ("owner", "status", "model", "created_at", "stream", "epoch", "last", "deployment", "provider_id", "format")
_CONTENT = ("request", "base", "snapshot")

PAGE = 100
"""How many ids of an owner's index are read in one call."""
PAGE_BATCHES, PAGE_BYTES = 64, 128 * 1024
"""How much of a log, in packed form, is read in one call. It limits a reader's memory, and the time of the call."""


class Responses:
    """The records and logs of all responses, from any process."""

    def __init__(self, connections: Connections, shards: int, terms: Terms) -> None:
        self._client = connections.commands
        self._terms = terms
        self._pack = terms.pack
        self._shards = Shards(shards)

    async def create(self, new: NewResponse) -> Created:
        """Write record, events 0 and 1, and the job; or find the response that the idempotency key started before.

        `new.id` must lie in its owner's shard (`draw_id`). Repeating the call with the same id changes nothing.
        """
        shard = self._shards.of(new.owner)
        key = new.idempotency_key
        word, detail = await CREATE.run_durably(
            self._client,
            self._terms.durability,
            whole=shard.whole,
            record=shard.record(new.id),
            log=shard.log(new.id),
            queue=shard.queue(new.owner),
            rotation=shard.rotation,
            owned=shard.owned(new.owner),
            ended=shard.ended(new.owner),
            owners=shard.owners,
            tombstone=shard.tombstone(new.id),
            idempotency=shard.idempotency(new.owner, key) if key else None,
            id=new.id,
            owner=new.owner,
            digest=new.body_digest,
            opening=self._pack(new.opening),
            idempotency_ttl_ms=IDEMPOTENCY_TTL_MS,
            index_ttl_ms=INDEX_TTL_MS,
            wake=shard.wake,
            record_prefix=shard.record(""),
            queue_prefix=shard.queue(""),
            ended_prefix=shard.ended(""),
            most_queued=new.most_queued,
            most_in_flight=new.most_in_flight,
            ttl_ms=int(new.ttl_s * 1000),
            begin_within_ms=int(new.begin_within_s * 1000),
            model=new.model,
            metadata=new.metadata,
            **self._terms.feed_words(shard, len(self._shards)),
            fields=[
                *("created_at", new.created_at, "stream", int(new.stream)),
                *("request", new.request, "started", self._pack(new.started)),
                *("pinned", new.pinned, "previous", new.previous, "format", FORMAT),
                *(("webhook", new.webhook) if new.webhook else ()),
                *(("client_key", new.client_key) if new.client_key else ()),
                *("request_id", new.request_id, *(("headers", new.headers) if new.headers else ())),
            ],
        )
        outcome = CreateOutcome(word.decode())
        if outcome in (CreateOutcome.BUSY, CreateOutcome.FULL):
            return Created(outcome, retry_after_s=int(detail))
        return Created(outcome, detail.decode())

    async def keep(self, kept: KeptResponse) -> None:
        """Write the record of a response that no job of ours made. A repeat writes the same again."""
        shard = self._shards.of(kept.owner)
        await KEEP.run(
            self._client,
            record=shard.record(kept.id),
            kept=shard.kept(kept.owner, kept.digits),
            id=kept.id,
            ttl_ms=int(kept.ttl_s * 1000),
            fields=[
                *("owner", kept.owner, "model", kept.model, "status", kept.status, "created_at", kept.created_at),
                *("stream", 0, "epoch", 1, "last", 0, "deployment", kept.deployment, "format", FORMAT),
                *("request", kept.request, "snapshot", kept.snapshot),
            ],
        )

    async def kept_with(self, owner: str, digits: str) -> str | None:
        """The id of the kept response whose items have these digits in their ids; None if there is none."""
        async with answered(self._client):
            found: Any = await self._client.get(self._shards.of(owner).kept(owner, digits))
        return None if found is None else found.decode()

    async def started_by(self, owner: str, idempotency_key: str) -> tuple[str, str] | None:
        """The response that this key started, and the digest of its body; None if there is no such response."""
        async with answered(self._client):
            asked: Any = self._client.hmget(self._shards.of(owner).idempotency(owner, idempotency_key), "id", "body")
            response_id, digest = await asked
        if response_id is None or await self.find(response_id.decode()) is None:
            return None
        return response_id.decode(), (digest or b"").decode()

    async def find(self, response_id: str) -> Record | None:
        """The record alone, without its contents."""
        reading = await self._read(response_id, START, _FIELDS, limit=0)
        return None if reading is None else reading.record

    async def read(self, response_id: str, after: Cursor = START, *, request: bool = True) -> Reading | None:
        """Read what the Response object is made of: the final snapshot, or else one page of the events behind `after`.

        `Reading.reaches_end` tells whether it is the last page. If the log has begun a later epoch than the cursor's,
        the events come from the start of that epoch. With `request=False` the request is left out, which may be long.
        """
        names = (*_FIELDS, *(_CONTENT if request else _CONTENT[1:]))
        return await self._read(response_id, after, names, unless_final=True)

    async def read_log(self, response_id: str, after: Cursor, limit: int = PAGE_BATCHES) -> Reading | None:
        """Read a page of the events behind the cursor, also when the response has ended."""
        return await self._read(response_id, after, _FIELDS, limit=limit)

    async def read_request(self, response_id: str) -> bytes | None:
        """The body that the client sent."""
        reading = await self._read(response_id, START, (*_FIELDS, "request"), limit=0)
        return None if reading is None else reading.request

    async def _read(
        self,
        response_id: str,
        after: Cursor,
        names: Sequence[str],
        *,
        limit: int = PAGE_BATCHES,
        unless_final: bool = False,
    ) -> Reading | None:
        shard = self._shards.of(response_id)
        fields, entries = await READ.run(
            self._client,
            record=shard.record(response_id),
            log=shard.log(response_id),
            start=f"{after.epoch}-{max(after.last, 0)}",
            most=limit,
            most_bytes=PAGE_BYTES,
            unless_final=int(unless_final),
            names=names,
        )
        return _reading(response_id, dict(zip(names, fields, strict=True)), entries)

    async def cancel(self, record: Record, head: bytes, tail: bytes) -> CancelOutcome:
        """Cancel the response, unless it has ended. `head` + sequence number + `tail` is the terminal frame.

        Raises `StoreNewer`.
        """
        check_record(record.id, record.format)
        shard = self._shards.of(record.id)
        outcome = await CANCEL.run(
            self._client,
            whole=shard.whole,
            record=shard.record(record.id),
            log=shard.log(record.id),
            leases=shard.leases,
            owned=shard.owned(record.owner),
            ended=shard.ended(record.owner),
            queue=shard.queue(record.owner),
            upstream_cancels=shard.upstream_cancels,
            id=record.id,
            over=shard.over(record.id),
            revoked=shard.revoked,
            index_ttl_ms=INDEX_TTL_MS,
            **self._terms.feed_words(shard, len(self._shards)),
            **self._terms.outbox_words(shard, record.owner, "cancelled"),
            **self._terms.usage_words(shard, record.owner, record.model),
            head=head,
            tail=tail,
        )
        return CancelOutcome(outcome.decode())

    async def delete(self, record: Record, token: str) -> bool:
        """Remove a response and all that belongs to it, running or not. A repeat with the same token succeeds again.

        Raises `StoreNewer`.
        """
        check_record(record.id, record.format)
        shard = self._shards.of(record.id)
        outcome = await DELETE.run(
            self._client,
            whole=shard.whole,
            record=shard.record(record.id),
            log=shard.log(record.id),
            leases=shard.leases,
            owned=shard.owned(record.owner),
            ended=shard.ended(record.owner),
            queue=shard.queue(record.owner),
            tombstone=shard.tombstone(record.id),
            upstream_cancels=shard.upstream_cancels,
            id=record.id,
            token=token,
            over=shard.over(record.id),
            revoked=shard.revoked,
            tombstone_ttl_ms=TOMBSTONE_TTL_MS,
            **self._terms.feed_words(shard, len(self._shards)),
            **self._terms.usage_words(shard, record.owner, record.model),
        )
        return bool(outcome == b"ok")

    async def owned(self, owner: str, after: str | None = None) -> AsyncIterator[Record]:
        """The owner's responses, newest first, starting behind the one named `after`. Expired ones are left out."""
        shard = self._shards.of(owner)
        index = shard.owned(owner)
        rank: int | None = -1 if after is None else await self._rank(index, after)
        while rank is not None:
            async with answered(self._client):
                page: Any = await self._client.zrange(index, rank + 1, rank + PAGE, desc=True)
            ids = [member.decode() for member in page]
            for record in await self.find_many(ids):
                if record is not None:
                    yield record
            if len(ids) < PAGE:
                return
            # Responses created meanwhile have moved all ranks.
            here = await self._rank(index, ids[-1])
            rank = rank + PAGE if here is None else here

    async def _rank(self, index: str, response_id: str) -> int | None:
        async with answered(self._client):
            rank: int | None = await self._client.zrevrank(index, response_id)  # type: ignore[assignment]
        return rank

    async def statuses(self, ids: Sequence[str]) -> list[StatusEntry | None]:
        """The last change of status of each, in order, as the feed told it; None where a response is gone."""
        rows = await self._rows(ids, _OF_STATUS)
        return [_status(response_id, row) if row else None for response_id, row in zip(ids, rows, strict=True)]

    async def find_many(self, ids: Sequence[str]) -> list[Record | None]:
        """The records of these responses, in order; None for one that is gone."""
        rows = await self._rows(ids, _FIELDS)
        return [
            _record(response_id, dict(zip(_FIELDS, row, strict=True))) if row else None
            for response_id, row in zip(ids, rows, strict=True)
        ]

    async def _rows(self, ids: Sequence[str], names: Sequence[str]) -> list[list[bytes | None]]:
        """These fields of each record, in order, with one round trip for each shard; empty for one that is none."""
        found: dict[str, list[bytes | None]] = {}

        async def read(shard: Shard, mine: Sequence[str]) -> None:
            records = [shard.record(response_id) for response_id in mine]
            rows = await FIND.run(self._client, records=records, fields=names)
            found.update(zip(mine, rows, strict=True))

        await together(read(shard, mine) for shard, mine in by_shard(ids, self._shards.of).items())
        return [found[response_id] for response_id in ids]


_OF_STATUS = ("status", "owner", "model", "metadata", "since")


def _status(response_id: str, row: list[bytes | None]) -> StatusEntry | None:
    """The last change of a response's status; None where there is no record, or a broken one."""
    status, owner, model, since = ((row[i] or b"").decode("utf-8", "replace") for i in (0, 1, 2, 4))
    if not (status and owner):
        return None
    # A record that an older version has made does not say since when.
    return StatusEntry(parse_place(since) or Place(0), status, response_id, owner, model, row[3] or b"")


_COUNT = re.compile(r"[0-9]{1,15}")


def _record(response_id: str, fields: dict[str, bytes | None]) -> Record | None:
    """The record, or None if it does not exist. A record that was damaged by hand counts as deleted."""
    texts = {name: (fields[name] or b"").decode("utf-8", "replace") for name in _FIELDS}
    numbers = [texts[name] for name in ("created_at", "epoch", "last")]
    if not (texts["status"] and texts["owner"]) or not all(map(_COUNT.fullmatch, numbers)):
        return None
    created_at, epoch, last = map(int, numbers)
    return Record(
        id=response_id,
        owner=texts["owner"],
        status=texts["status"],
        model=texts["model"],
        created_at=created_at,
        stream=texts["stream"] == "1",
        cursor=Cursor(epoch, last),
        ran_on=texts["deployment"],
        provider_id=texts["provider_id"],
        format=parse_format(fields["format"]),
    )


def _reading(response_id: str, fields: dict[str, bytes | None], entries: list[Any]) -> Reading | None:
    record = _record(response_id, fields)
    if record is None:
        return None
    if entries or any(name in fields for name in _CONTENT):
        check_record(response_id, record.format)
    try:
        batches = tuple(Batch(Cursor(*map(int, at.split(b"-"))), unpack(values[1])) for at, values in entries)
    except ValueError as error:
        raise StoreError(f"the log of {response_id} can't be read: {error}") from error
    content = {name: fields.get(name) or b"" for name in _CONTENT}
    return Reading(record, **content, batches=batches)
