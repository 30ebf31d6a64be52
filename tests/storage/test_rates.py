"""Rates: never more requests of an owner within any minute than allowed, however many processes count them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
import redis

from storage import Store, open_store
from tests.support.stored import ALICE, BOB


async def count(store: Store, most: int, owner: str = ALICE, token: bytes = b"") -> float:
    return await store.rates.count(owner, token or uuid4().bytes, most)


async def test_as_many_as_allowed_are_counted_and_the_next_is_told_when_there_is_room(store: Store) -> None:
    assert [await count(store, 3) for _ in range(3)] == [0, 0, 0]
    assert 59 < await count(store, 3) <= 60
    assert await count(store, 3, BOB) == 0, "each owner for itself"


async def test_of_many_at_the_same_instant_from_two_processes_exactly_as_many_as_allowed_are_counted(
    store: Store, store_url: str
) -> None:
    async with open_store(store_url) as other:
        waits = await asyncio.gather(*(count(one, 70) for one in (store, other) * 60))
    assert waits.count(0) == 70


async def test_there_is_room_again_when_a_request_leaves_the_minute(store: Store, admin: redis.Redis) -> None:
    for _ in range(2):
        assert await count(store, 2) == 0
        pass_time(admin, store, 25)
    assert 9 < await count(store, 2) <= 10, "the first was 50 s ago"
    pass_time(admin, store, 10)
    assert await count(store, 2) == 0
    assert 24 < await count(store, 2) <= 25, "the second is 35 s old by now"


async def test_what_is_refused_does_not_count(store: Store, admin: redis.Redis) -> None:
    assert await count(store, 1) == 0
    pass_time(admin, store, 59)
    for _ in range(5):
        assert 0 < await count(store, 1) <= 1
    pass_time(admin, store, 1)
    assert await count(store, 1) == 0


async def test_a_request_that_is_counted_again_counts_once(store: Store) -> None:
    for _ in range(3):
        assert await count(store, 2, token=b"one") == 0
    assert await count(store, 2, token=b"two") == 0
    assert await count(store, 2, token=b"one") == 0
    assert await count(store, 2, token=b"three") > 0


async def test_keys_of_one_owner_share_its_requests_each_with_a_limit_of_its_own(store: Store) -> None:
    for _ in range(3):
        assert await count(store, 5) == 0
    assert await count(store, 2) > 0
    assert await count(store, 5) == 0


async def test_what_is_kept_is_bounded_and_lasts_a_minute(store: Store, admin: redis.Redis) -> None:
    for _ in range(20):
        for _ in range(5):
            await count(store, 5)
        pass_time(admin, store, 61)
    await count(store, 5)
    key = store.jobs.shards.of(ALICE).requests(ALICE)
    assert admin.zcard(key) == 1
    assert 50_000 < int(str(admin.pttl(key))) <= 60_000


@pytest.mark.parametrize("owner", ["a:b", "ü", "x" * 300])
async def test_any_owner_has_a_rate(store: Store, owner: str) -> None:
    assert await count(store, 1, owner) == 0
    assert await count(store, 1, owner) > 0


def pass_time(admin: redis.Redis, store: Store, seconds: int) -> None:
    """As if all requests of alice had come so much earlier."""
    key = store.jobs.shards.of(ALICE).requests(ALICE)
    tokens: Any = admin.zrange(key, 0, -1)
    for token in tokens:
        admin.zincrby(key, -1000 * seconds, token)
