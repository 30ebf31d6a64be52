"""Keys: one shard holds all of an owner, and the table in the module is the whole truth."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import date
from typing import Any
from uuid import uuid4

import pytest
import redis

from storage import Cursor, Outcome, Store, draw_id, keys, open_store, steps_and_end
from storage.keys import CHECKUP, PROCESSES, SETTINGS, Shard, shard_of
from tests.support.ears import listening
from tests.support.stored import (
    LEASE_S,
    append,
    cancel,
    create,
    finish,
    log_of,
    numbered,
    record_of,
    run,
    shard_of_id,
    try_lease,
)
from tests.support.waiting import wait_until

OWNERS = [f"owner-{number}" for number in range(40)]

ROWS = re.findall(r"^\| `(pollux:\S+)` \|", keys.__doc__ or "", re.MULTILINE)
"""Every key and channel of the table."""


def pattern(row: str) -> re.Pattern[str]:
    """What a name of this row looks like."""
    text = re.escape(row).replace(r"\{n\}", r"\{\d+\}")
    return re.compile(re.sub(r"<(\w+)>", r"[^:]+", text) + r"\Z")


_OF_TWO: dict[str, tuple[Any, ...]] = {
    "idempotency": ("alice", "key"),
    "kept": ("alice", "digits"),
    "usage": (date(2026, 11, 27), "alice"),
}
"""What the names of two parts are made of."""


def names(shard: Shard) -> dict[str, str]:
    """Every name that a shard makes, by the word for it."""
    made: dict[str, str] = {}
    for word in [name for name in dir(Shard) if not name.startswith("_") and name not in ("n", "prefix")]:
        name: Any = getattr(shard, word)
        if callable(name):
            name = name(*_OF_TWO.get(word, ("x",)))
        made[word] = name
    return made


@pytest.mark.parametrize(("word", "name"), names(Shard(7)).items())
def test_every_name_stands_in_the_table_and_lies_in_its_shard(word: str, name: str) -> None:
    assert name.startswith(f"pollux:{{7}}:{word}")
    assert any(pattern(row).match(name) for row in ROWS)


def test_every_row_of_the_table_is_a_name_that_is_made() -> None:
    made = [*names(Shard(0)).values(), SETTINGS, PROCESSES, CHECKUP]
    assert len(ROWS) == len(made)
    assert all(any(pattern(row).match(name) for name in made) for row in ROWS)


@pytest.mark.parametrize("shards", [1, 2, 16])
def test_an_id_is_drawn_until_it_lies_in_the_shard_of_its_owner(shards: int) -> None:
    for owner in OWNERS:
        drawn = draw_id(lambda: uuid4().hex, owner, shards)
        assert shard_of(drawn, shards) == shard_of(owner, shards)


def test_owners_are_spread_over_the_shards_the_same_way_for_ever() -> None:
    assert len(Counter(shard_of(owner, 16) for owner in OWNERS)) > 10
    assert [shard_of(owner, 16) for owner in ("alice", "bob", "master", "")] == [7, 0, 6, 0]


def test_an_idempotency_key_of_any_bytes_and_length_makes_a_short_plain_name() -> None:
    for key in ("", "x" * 10_000, "a:b {c}\r\n\x00", "ключ", "\udcff"):
        assert re.fullmatch(r"pollux:\{0\}:idempotency:alice:[0-9a-f]{64}", Shard(0).idempotency("alice", key))


async def test_after_a_busy_life_the_server_holds_only_what_the_table_names(store: Store, admin: redis.Redis) -> None:
    await a_busy_life(store, "alice")
    found = [key.decode() for key in admin.scan_iter()]
    assert len({key.partition("}:")[2].partition(":")[0] for key in found}) == 16
    for key in found:
        assert any(pattern(row).match(key) for row in ROWS), key


async def a_busy_life(store: Store, owner: str) -> None:
    """Leaves a key of every kind."""
    shard = shard_of(owner, store.shards)
    await finish(store, await run(store, owner, idempotency_key="k"), 3)
    await append(store, await run(store, owner), 3, 4)
    deleted = await create(store, owner)
    await store.responses.delete(await record_of(store, deleted), "t")
    await cancel(store, await create(store, owner))
    assert await try_lease(store, shard=shard) is None
    await create(store, owner)


async def test_on_many_shards_everything_of_an_owner_lies_in_one(store_url: str, admin: redis.Redis) -> None:
    async with open_store(store_url, shards=16) as store:
        for owner in OWNERS:
            await a_busy_life(store, owner)
            for response_id in await responses_of(store, owner):
                assert shard_of_id(store, response_id).n == shard_of(owner, 16)
                await cancel(store, response_id)  # or another owner's turn would lease it
        for key in admin.scan_iter():
            shard, name = re.fullmatch(r"pollux:\{(\d+)\}:(.*)", key.decode()).groups()  # type: ignore[union-attr]
            parts = name.split(":")
            if parts[0] in ("record", "log", "tombstone", "queue", "owned", "ended", "idempotency"):
                assert shard_of(parts[1], 16) == int(shard)
            elif parts[0] == "usage":
                assert shard_of(parts[2], 16) == int(shard)


async def responses_of(store: Store, owner: str) -> list[str]:
    return [record.id async for record in store.responses.owned(owner)]


async def test_on_many_shards_everything_works_across_them(store_url: str, admin: redis.Redis) -> None:
    async with open_store(store_url, shards=16) as store, listening(store) as (listener, notes):
        created = await asyncio.gather(*(create(store, owner) for owner in OWNERS))
        await asyncio.gather(*(listener.subscribe(steps_and_end(response_id)) for response_id in created))
        await wait_until(lambda: notes.wakes >= len(OWNERS))

        taken = []
        for shard in range(16):
            while one := await try_lease(store, shard=shard):
                taken.append(one)
        assert Counter(one.id for one in taken) == Counter(created)
        assert await store.jobs.renew(taken, LEASE_S) == [Outcome.OK] * len(taken)
        assert [one.id for one in await store.responses.find_many(created) if one] == created

        for one in taken:
            await append(store, one, 3, 4)
            await finish(store, one, 5)
            await notes.hear((one.id, Cursor(1, 5), True))
            assert await log_of(store, one.id) == numbered(5, "completed")
            assert await responses_of(store, one.owner) == [one.id]
        assert await lease_any(store) is None


async def lease_any(store: Store) -> object:
    for shard in range(store.shards):
        if one := await try_lease(store, shard=shard):
            return one
    return None
