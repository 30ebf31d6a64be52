"""Overviews: lists of all owners, newest first, and the lives of jobs."""

from __future__ import annotations

from typing import Any

import redis

from storage import Mark, Store, Verdict
from storage.keys import Shard, shard_of
from tests.support.stored import ALICE, BOB, CAROL, cancel, create, expire_lease, finish, lease, record_of, run

OWNERS = (ALICE, BOB, CAROL, *(f"owner-{number}" for number in range(20)))


def place_at(admin: redis.Redis, store: Store, response_id: str, owner: str, at_ms: int) -> None:
    """Have it been created at that time."""
    shard = Shard(shard_of(owner, store.shards))
    admin.zadd(shard.owned(owner), {response_id: at_ms})
    admin.hset(shard.record(response_id), "queued_ms", at_ms)
    admin.zadd(shard.owners, {owner: at_ms}, gt=True)


async def pages(store: Store, owner: str | None = None, most: int = 7) -> list[str]:
    found: list[str] = []
    before: Mark | None = None
    while True:
        page, before = await store.overviews.page(owner, before, most)
        found += [one.id for one in page]
        if before is None:
            return found


async def test_pages_of_all_owners_have_each_response_once_the_newest_first(store: Store, admin: redis.Redis) -> None:
    made: list[tuple[int, str]] = []
    now_ms = 1_795_000_000_000
    for number in range(60):
        owner = OWNERS[number * 7 % len(OWNERS)]
        at_ms = now_ms - number // 4  # four share each millisecond
        response_id = await create(store, owner)
        place_at(admin, store, response_id, owner, at_ms)
        made.append((at_ms, response_id))
    for shard in {shard_of(owner, store.shards) for owner in OWNERS}:
        for owner in OWNERS:
            admin.zadd(Shard(shard).owners, {owner: now_ms}, xx=True)
    assert await pages(store) == [name for _, name in sorted(made, reverse=True)]
    mine = [name for _, name in sorted(made, reverse=True) if (await record_of(store, name)).owner == ALICE]
    assert await pages(store, ALICE, most=2) == mine


async def test_what_was_deleted_or_broken_by_hand_is_left_out(store: Store, admin: redis.Redis) -> None:
    kept, deleted, broken = [await create(store) for _ in range(3)]
    await store.responses.delete(await record_of(store, deleted), "t")
    shard = Shard(shard_of(ALICE, store.shards))
    admin.hdel(shard.record(broken), "owner")
    assert await pages(store) == [kept]
    admin.set(shard.owned(BOB), "not an index", ex=60)
    admin.zadd(shard.owners, {BOB: 1})
    assert await pages(store) == [kept]


async def test_a_life_has_each_stay_with_a_worker(store: Store) -> None:
    taken = await run(store)
    await store.jobs.release(taken)
    again = await lease(store)
    life = await store.overviews.of(taken.id)
    assert life is not None
    first, second = life.stays
    assert (first.released, second.released, second.until_ms) == (True, False, None)
    assert first.from_ms <= (first.until_ms or 0) <= second.from_ms
    await finish(store, again, 3, error_code="timeout", tokens="12 34")
    life = await store.overviews.of(taken.id)
    assert life is not None
    assert (life.ended, life.stays[-1].until_ms) == (True, life.changed_ms)
    assert (life.tokens, life.error_code) == ((12, 34), "timeout")


async def test_a_job_that_was_taken_over_tells_so(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    expire_lease(admin, store, taken.id)
    again = await lease(store)
    assert again.verdict is Verdict.RUN
    life = await store.overviews.of(taken.id)
    assert life is not None
    assert [(stay.attempt, stay.reclaimed) for stay in life.stays] == [(1, False), (2, True)]


async def test_a_job_that_is_handed_back_for_ever_has_a_life_of_bounded_length(
    store: Store, admin: redis.Redis
) -> None:
    response_id = await create(store)
    for _ in range(150):
        await store.jobs.release(await lease(store))
    shard = Shard(shard_of(ALICE, store.shards))
    stored: Any = admin.hget(shard.record(response_id), "life")
    assert len(stored) < 4200
    life = await store.overviews.of(response_id)
    assert life is not None
    assert len(life.stays) > 50


async def test_a_cancelled_job_that_never_ran_has_no_stay(store: Store) -> None:
    response_id = await create(store)
    await cancel(store, response_id)
    life = await store.overviews.of(response_id)
    assert life is not None
    assert (life.status, life.ended, life.stays, life.began_ms) == ("cancelled", True, (), None)


async def test_tallies_count_each_change_once(store: Store) -> None:
    for creator in (ALICE, ALICE, BOB):
        await cancel(store, await create(store, creator))
    expected: list[tuple[str | None, int]] = [(ALICE, 2), (BOB, 1), (None, 3)]
    for owner, count in expected:
        tallies = await store.overviews.tallies(owner, 3)
        assert len(tallies) == 3
        for status in ("queued", "cancelled"):
            assert sum(tally.get(status, 0) for tally in tallies) == count
