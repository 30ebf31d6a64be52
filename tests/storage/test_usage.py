"""Usage: what a response has used is counted once, by the very step that ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from typing import Any

import pytest
import redis

from storage import Counted, Ledger, Outcome, Spent, Store, encode_spent, open_store, today
from storage.spent import MOST
from storage.usage import PAGE_OWNERS
from tests.support.stored import (
    ALICE,
    BOB,
    append,
    cancel,
    create,
    expire_lease,
    finish,
    lease,
    record_of,
    run,
)

MODEL = "gpt-5.2"
TOLD = Spent(MODEL, input=12, cached=4, output=40, reasoning=30, cost=415_500)
UNTOLD = Spent(MODEL)


async def used(store: Store, owner: str = ALICE, day: date | None = None) -> list[Spent]:
    """What an owner has used on one day; on its eve too, in case that it has just begun."""
    days = [day] if day else [today() - timedelta(days=1), today()]
    return [one for page in await store.usage.read(owner, days) for one in page]


async def count(store: Store, spent: Spent, owner: str = ALICE, *, token: str, day: date | None = None) -> None:
    counted = Counted(owner, day or today(), spent, token, 60)
    await store.usage.count(store.usage.shards.of(owner), [counted])


# ---- The ends of cached responses


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
async def test_an_end_counts_what_was_told_whatever_the_status(store: Store, status: str) -> None:
    await finish(store, await run(store), 3, status, TOLD)
    assert await used(store) == [TOLD]


async def test_an_end_of_which_nothing_was_told_counts_as_a_request(store: Store) -> None:
    await finish(store, await run(store), 3, "failed")
    await cancel(store, await create(store))
    assert await used(store) == [UNTOLD + UNTOLD]


async def test_an_end_that_arrives_again_counts_once(store: Store) -> None:
    taken = await run(store)
    for _ in range(3):
        assert (await finish(store, taken, 3, "completed", TOLD)).outcome is Outcome.OK
    assert await used(store) == [TOLD]


async def test_the_second_of_two_ends_counts_nothing(store: Store) -> None:
    taken = await run(store)
    await finish(store, taken, 3, "completed", TOLD)
    assert (await finish(store, taken, 3, "failed", TOLD)).outcome is Outcome.OVER
    assert await cancel(store, taken.id) == "over"
    assert await used(store) == [TOLD]

    taken = await run(store)
    await cancel(store, taken.id)
    assert (await finish(store, taken, 4, "completed", TOLD)).outcome is Outcome.OVER
    assert await used(store) == [TOLD + UNTOLD]


async def test_who_lost_the_lease_counts_nothing(store: Store, admin: redis.Redis) -> None:
    former = await run(store)
    expire_lease(admin, store, former.id)
    present = await lease(store)
    assert (await finish(store, former, 3, "completed", TOLD)).outcome is Outcome.STALE
    assert await used(store) == []
    await finish(store, present, 3, "completed", TOLD)
    assert await used(store) == [TOLD]


async def _cancelled(store: Store, response_id: str) -> None:
    for _ in range(2):
        await cancel(store, response_id)


async def _deleted(store: Store, response_id: str) -> None:
    record = await record_of(store, response_id)
    for _ in range(2):
        assert await store.responses.delete(record, "t1")


@pytest.mark.parametrize("end", [_cancelled, _deleted])
async def test_a_run_that_is_stopped_counts_what_had_been_told_so_far(
    store: Store, end: Callable[[Store, str], Awaitable[None]]
) -> None:
    taken = await run(store)
    await append(store, taken, 3, 3, spent=encode_spent(TOLD))
    await end(store, taken.id)
    assert await used(store) == [TOLD]


async def test_a_run_that_breaks_off_counts_what_had_been_told_so_far(store: Store) -> None:
    taken = await run(store)
    await append(store, taken, 3, 3, spent=encode_spent(TOLD))
    await finish(store, taken, 4, "failed")
    assert await used(store) == [TOLD]


async def test_what_is_deleted_after_its_end_is_not_counted_again(store: Store) -> None:
    taken = await run(store)
    await finish(store, taken, 3, "completed", TOLD)
    await _deleted(store, taken.id)
    assert await used(store) == [TOLD]


async def test_owners_and_models_are_told_apart(store: Store) -> None:
    other = Spent("a model\twith a tab\nand more", output=1, cost=0)
    for owner, spent in ((ALICE, TOLD), (ALICE, other), (BOB, TOLD)):
        await finish(store, await run(store, owner), 3, "completed", spent)
    assert sorted(await used(store), key=str) == sorted([TOLD, other], key=str)
    assert await used(store, BOB) == [TOLD]
    assert sorted([owner async for owner in store.usage.owners()]) == sorted([ALICE, BOB])


async def test_what_nobody_told_is_counted_under_the_label_of_the_model(store_url: str) -> None:
    async with open_store(store_url, ledger=Ledger(label=lambda model: f"{model[:3]}*")) as store:
        await cancel(store, await create(store))
        await finish(store, await run(store), 3, "failed")
        assert await used(store) == [Spent("gpt*", requests=2)]


@pytest.mark.parametrize("broken", ["usage", "usage_owners"])
async def test_a_key_that_was_broken_by_hand_keeps_nothing_from_ending(
    store: Store, admin: redis.Redis, broken: str
) -> None:
    shard = store.usage.shards.of(ALICE)
    admin.set(shard.usage(today(), ALICE) if broken == "usage" else shard.usage_owners, "broken", px=60_000)
    taken = await run(store)
    assert (await finish(store, taken, 3, "completed", TOLD)).outcome is Outcome.OK
    assert (await record_of(store, taken.id)).status == "completed"
    await count(store, TOLD, BOB, token="t1")
    if broken == "usage":
        assert await used(store) == []
        assert await used(store, BOB) == [TOLD]


async def test_a_record_whose_usage_was_broken_by_hand_ends_all_the_same(store: Store) -> None:
    taken = await run(store)
    await append(store, taken, 3, 3, spent="broken")
    await cancel(store, taken.id)
    assert (await record_of(store, taken.id)).status == "cancelled"


# ---- What passes through


async def test_a_token_counts_once(store: Store, store_url: str) -> None:
    async with open_store(store_url) as other:
        await asyncio.gather(*(count(one, TOLD, token="t1") for one in (store, other) * 5))
    await count(store, TOLD, token="t2")
    assert await used(store) == [TOLD + TOLD]


async def test_many_counts_are_one_call(store: Store) -> None:
    many = [Counted(ALICE, today(), Spent(MODEL, requests=2, input=number), f"t{number}", 60) for number in range(100)]
    await store.usage.count(store.usage.shards.of(ALICE), many)
    assert await used(store) == [Spent(MODEL, requests=200, input=4950)]


async def test_days_are_told_apart(store: Store) -> None:
    first = date(2026, 2, 28)
    await count(store, TOLD, token="t1", day=first)
    await count(store, UNTOLD, token="t2", day=first + timedelta(days=1))
    days = [first + timedelta(days=number) for number in range(-1, 3)]
    assert await store.usage.read(ALICE, days) == [[], [TOLD], [UNTOLD], []]


async def test_large_sums_are_exact(store: Store) -> None:
    for number in range(3):
        await count(store, Spent(MODEL, output=9_007_199_254_740_993, cost=1), token=f"t{number}")
    assert await used(store) == [Spent(MODEL, requests=3, output=3 * MOST, cost=3)]
    await count(store, Spent("x", cost=MOST - 1), token="t4")
    await count(store, Spent("x", cost=2), token="t5")
    assert Spent("x", requests=2, cost=MOST + 1) in await used(store)


async def test_usage_is_kept_as_long_as_it_is_said(store_url: str, admin: redis.Redis) -> None:
    async with open_store(store_url, ledger=Ledger(for_s=3600)) as store:
        await count(store, TOLD, token="t1")
        shard = store.usage.shards.of(ALICE)
        for key in (shard.usage(today(), ALICE), shard.usage_owners):
            assert 3590 < int(str(admin.ttl(key))) <= 3600
        assert 50 < int(str(admin.ttl(shard.counted("t1")))) <= 60


async def test_an_owner_that_has_used_nothing_for_so_long_is_forgotten(store: Store, admin: redis.Redis) -> None:
    await count(store, TOLD, token="t1")
    shard = store.usage.shards.of(ALICE)
    admin.zadd(shard.usage_owners, {ALICE: 1})
    await count(store, TOLD, BOB, token="t2")
    members: Any = admin.zrange(shard.usage_owners, 0, -1)
    assert members == [BOB.encode()]


async def test_any_number_of_owners_is_found(store: Store, admin: redis.Redis) -> None:
    shard = store.usage.shards.of(ALICE)
    names = {f"owner-{number}": 2**50 + number for number in range(2 * PAGE_OWNERS + 1)}
    admin.zadd(shard.usage_owners, names)
    admin.pexpire(shard.usage_owners, 60_000)
    assert {owner async for owner in store.usage.owners()} == names.keys()


@pytest.mark.parametrize("owner", ["a:b", "ü", "x" * 300])
async def test_any_owner_has_usage(store: Store, owner: str) -> None:
    await count(store, TOLD, owner, token="t1")
    assert await used(store, owner) == [TOLD]
