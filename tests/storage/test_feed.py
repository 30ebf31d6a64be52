"""The feed: one entry for each change of a status, written by the step that changes it, and bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from storage import Place, Retention, StatusEntry, Store, open_store
from storage.keys import shard_of
from tests.support.stored import (
    ALICE,
    BOB,
    append,
    cancel,
    create,
    expire_lease,
    finish,
    lease,
    new_response,
    record_of,
    run,
)

START = Place(0)


async def entries(store: Store, owner: str = ALICE) -> list[StatusEntry]:
    """All that is kept of the owner's responses."""
    shard = store.feed.shards[shard_of(owner, store.shards)]
    return [entry for entry in (await store.feed.read(shard, START)).entries if entry.owner == owner]


async def told(store: Store, response_id: str, owner: str = ALICE) -> list[str]:
    return [entry.status for entry in await entries(store, owner) if entry.response_id == response_id]


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete"])
async def test_each_change_of_a_status_is_told_once(store: Store, status: str) -> None:
    taken = await run(store)
    await append(store, taken, 3, 3)
    await finish(store, taken, 4, status)
    assert await told(store, taken.id) == ["queued", "in_progress", status]


async def test_a_cancel_and_a_delete_are_told(store: Store) -> None:
    queued, running = await create(store), await create(store)
    await cancel(store, queued)
    await store.responses.delete(await record_of(store, running), "t")
    await store.responses.delete(await record_of(store, queued), "t")
    assert await told(store, queued) == ["queued", "cancelled", "deleted"]
    assert await told(store, running) == ["queued", "deleted"]


async def test_a_step_that_runs_twice_tells_once(store: Store) -> None:
    new = new_response(shards=store.shards)
    for _ in range(2):
        await store.responses.create(new)
    first, taken = [await lease(store, token="t1") for _ in range(2)]
    assert first == taken
    for _ in range(2):
        await finish(store, taken, 3)
    record = await record_of(store, new.id)
    for _ in range(2):
        await store.responses.delete(record, "t")
    assert await told(store, new.id) == ["queued", "in_progress", "completed", "deleted"]


async def test_what_comes_too_late_tells_nothing(store: Store) -> None:
    taken = await run(store)
    await cancel(store, taken.id)
    await cancel(store, taken.id)
    await finish(store, taken, 3)
    assert await told(store, taken.id) == ["queued", "in_progress", "cancelled"]


async def test_a_job_that_goes_from_worker_to_worker_is_in_progress_once(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    await store.jobs.release(taken)
    again = await lease(store)
    await append(store, again, 3, 3)
    expire_lease(admin, store, taken.id)
    await finish(store, await lease(store), 3)
    assert await told(store, taken.id) == ["queued", "in_progress", "completed"]


async def test_an_entry_says_whose_it_is_and_what_the_client_gave(store: Store) -> None:
    metadata = b'{"order": "17"}'
    response_id = await create(store, model="gpt-5.2", metadata=metadata)
    await finish(store, await lease(store), 3)
    for entry in await entries(store):
        assert (entry.response_id, entry.owner, entry.model, entry.metadata) == (
            response_id,
            ALICE,
            "gpt-5.2",
            metadata,
        )


async def test_places_grow_in_the_order_of_happening_and_pages_go_on_behind_them(store: Store) -> None:
    for _ in range(5):
        await finish(store, await run(store), 3)
    await create(store, BOB)
    shard = store.feed.shards[shard_of(ALICE, store.shards)]
    whole = await store.feed.read(shard, START)
    places = [entry.place for entry in whole.entries]
    assert places == sorted(set(places))
    assert (whole.oldest, whole.newest) == (places[0], places[-1])
    found: list[StatusEntry] = []
    after = START
    while page := (await store.feed.read(shard, after, 4)).entries:
        found += page
        after = page[-1].place
    assert tuple(found) == whole.entries


async def test_of_an_empty_feed_the_end_is_now_and_nothing_that_comes_is_missed(store: Store) -> None:
    shard = store.feed.shards[shard_of(ALICE, store.shards)]
    page = await store.feed.read(shard, START)
    assert (page.entries, page.oldest) == ((), None)
    await create(store)
    (entry,) = (await store.feed.read(shard, page.newest)).entries
    assert entry.status == "queued"


# ---- Its bounds


async def test_it_is_bounded_in_number(store_url: str) -> None:
    async with open_store(store_url, 1, retention=Retention(most=300)) as store:
        ids = [await create(store) for _ in range(700)]
        kept = (await store.feed.read(store.feed.shards[0], START, 10_000)).entries
    # Whole nodes of the stream are dropped: 100 entries at once.
    assert 300 <= len(kept) <= 400
    assert kept[-1].response_id == ids[-1]


async def test_it_is_bounded_in_time(store_url: str, admin: redis.Redis) -> None:
    async with open_store(store_url, 1, retention=Retention(for_s=0.05)) as store:
        for _ in range(250):
            await create(store)
        await asyncio.sleep(0.06)  # the retention itself
        last = await create(store)
        shard = store.feed.shards[0]
        page = await store.feed.read(shard, START, 10_000)
        assert len(page.entries) <= 151
        assert page.entries[-1].response_id == last
        assert 0 < admin.pttl(shard.feed) <= 50


@pytest.mark.one_server
async def test_an_event_costs_less_than_200_bytes(store: Store, admin: redis.Redis) -> None:
    for _ in range(400):
        await finish(store, await run(store), 3)
    shard = store.feed.shards[shard_of(ALICE, store.shards)]
    assert admin.xlen(shard.feed) == 1200
    size: Any = admin.memory_usage(shard.feed, samples=0)
    assert size / 1200 <= 200


async def test_a_feed_that_was_broken_by_hand_keeps_no_response_from_ending(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    shard = store.feed.shards[shard_of(ALICE, store.shards)]
    admin.set(shard.feed, "nonsense")
    await finish(store, taken, 3)
    assert await told(store, taken.id) == ["completed"]
