"""The life of a response in the store, a word for each step. The frame of event n is simply `[n]`."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import redis

from storage import (
    START,
    Append,
    CancelOutcome,
    Created,
    CreateOutcome,
    Cursor,
    Finish,
    Lease,
    NewResponse,
    Outcome,
    Record,
    Spent,
    Step,
    Store,
    StoreError,
    draw_id,
)
from storage.keys import Shard, shard_of

ALICE, BOB, CAROL = "alice", "bob18", "carol0"
"""Owners who share a shard, be there 1 or 16: they compete for workers."""
LEASE_S = 60.0
"""Longer than any test: a lease runs out when `expire_lease` says so."""
HEAD, TAIL = b"[", b" cancelled]"


def frames(first: int, last: int) -> bytes:
    return b"".join(b"[%d]" % number for number in range(first, last + 1))


def new_response(owner: str = ALICE, *, shards: int = 16, **changes: Any) -> NewResponse:
    new = NewResponse(
        id=draw_id(lambda: f"litellm_poll_{uuid4()}", owner, shards),
        owner=owner,
        model="gpt-5.2",
        created_at=int(time.time()),
        stream=False,
        request=b'{"input": "hello"}',
        opening=frames(0, 1),
        started=frames(2, 2),
        ttl_s=3600.0,
    )
    return replace(new, **changes)


async def create(store: Store, owner: str = ALICE, **changes: Any) -> str:
    """A queued response; its id."""
    new = new_response(owner, shards=store.shards, **changes)
    assert await store.responses.create(new) == Created(CreateOutcome.CREATED, new.id)
    return new.id


async def try_lease(
    store: Store,
    *,
    token: str = "",
    shard: int | None = None,
    max_attempts: int = 3,
    max_age_s: float = 86400.0,
    reclaim: bool = True,
) -> Lease | None:
    answer = await store.jobs.lease(
        store.jobs.shards[shard_of(ALICE, store.shards) if shard is None else shard],
        token or uuid4().hex,
        lease_s=LEASE_S,
        max_attempts=max_attempts,
        max_age_s=max_age_s,
        reclaim_until_ms=2**53 if reclaim else 0,
    )
    return answer.lease


async def lease(store: Store, **options: Any) -> Lease:
    """The next job, which there must be."""
    taken = await try_lease(store, **options)
    assert taken is not None
    return taken


async def run(store: Store, owner: str = ALICE, **changes: Any) -> Lease:
    """A response in progress; the only job there is."""
    response_id = await create(store, owner, **changes)
    taken = await lease(store, shard=shard_of(owner, store.shards))
    assert taken.id == response_id
    return taken


async def append(store: Store, taken: Lease, first: int, last: int, **fields: str | bytes) -> Step | StoreError:
    """The batch of frames first … last."""
    batch = Append(taken, first, last, frames(first, last), dict(fields), number=last)
    (step,) = await store.jobs.append_many([batch], LEASE_S)
    return step


async def finish(
    store: Store,
    taken: Lease,
    number: int,
    status: str = "completed",
    spent: Spent | None = None,
    **fields: str | bytes,
) -> Step:
    """The terminal event alone, with this number."""
    batch = Append(taken, number, number, terminal(number, status), dict(fields))
    return await store.jobs.finish(Finish(batch, status, b'{"status": "%b"}' % status.encode(), spent=spent))


def terminal(number: int, status: str) -> bytes:
    return b"[%d %b]" % (number, status.encode())


async def renew(store: Store, taken: Lease) -> Outcome:
    (outcome,) = await store.jobs.renew([taken], LEASE_S)
    if isinstance(outcome, StoreError):
        raise outcome
    return outcome


async def cancel(store: Store, response_id: str) -> CancelOutcome:
    return await store.responses.cancel(await record_of(store, response_id), HEAD, TAIL)


async def record_of(store: Store, response_id: str) -> Record:
    record = await store.responses.find(response_id)
    assert record is not None
    return record


async def log_of(store: Store, response_id: str, after: Cursor = START) -> list[str]:
    """What is in each frame of the event log."""
    reading = await store.responses.read_log(response_id, after, 10_000)
    assert reading is not None
    return told(b"".join(batch.frames for batch in reading.batches))


def told(frames_: bytes) -> list[str]:
    return re.findall(r"\[(.*?)\]", frames_.decode())


def numbered(last: int, ending: str = "") -> list[str]:
    """A log from 0 to `last`, the last one with this status."""
    return [str(number) for number in range(last)] + [f"{last} {ending}".strip()]


def shard_of_id(store: Store, response_id: str) -> Shard:
    return store.jobs.shards[shard_of(response_id, store.shards)]


def expire_lease(admin: redis.Redis, store: Store, response_id: str) -> None:
    """As if its worker had been silent for too long."""
    changed = admin.zadd(shard_of_id(store, response_id).leases, {response_id: 1}, xx=True, ch=True)
    assert changed == 1, "it was not leased, or had run out before"


async def a_millisecond(admin: redis.Redis) -> None:
    """Wait for the server's clock, by which queues and indexes are ordered."""
    before = _now_ms(admin)
    while _now_ms(admin) == before:
        await asyncio.sleep(0)


def _now_ms(admin: redis.Redis) -> int:
    seconds, micros = admin.time()
    return seconds * 1000 + micros // 1000
