"""Versions that write different formats on one store: nothing is misread, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from storage import Reading, Store, StoreMisfit, StoreUnavailable, open_store
from storage.formats import FORMAT, NEWEST_READ
from storage.keys import SETTINGS
from storage.records import START, KeptResponse
from tests.support.stored import (
    ALICE,
    BOB,
    append,
    cancel,
    create,
    expire_lease,
    finish,
    lease,
    log_of,
    new_response,
    numbered,
    record_of,
    run,
    shard_of_id,
    try_lease,
)

NEWER = NEWEST_READ + 1


def become_newer(admin: redis.Redis, store: Store, response_id: str) -> None:
    """As if a newer version had created it, or had run it."""
    admin.hset(shard_of_id(store, response_id).record(response_id), "format", NEWER)


def format_of(admin: redis.Redis, store: Store, response_id: str) -> bytes | None:
    kept: bytes | None = admin.hget(shard_of_id(store, response_id).record(response_id), "format")  # type: ignore[assignment]
    return kept


# ---- The store's


async def test_a_new_store_gets_the_format_of_whoever_opens_it(store: Store, admin: redis.Redis) -> None:
    assert admin.hget(SETTINGS, "format") == b"%d" % FORMAT


async def test_a_store_that_is_too_new_is_refused_and_left_as_it_is(store_url: str, admin: redis.Redis) -> None:
    async with open_store(store_url):
        pass
    admin.hset(SETTINGS, "format", NEWER)
    before = admin.hgetall(SETTINGS)
    with pytest.raises(StoreMisfit, match=f"in format {NEWER}; this version reads formats up to {NEWEST_READ}"):
        async with open_store(store_url):
            pass
    assert admin.hgetall(SETTINGS) == before


async def test_a_store_that_is_too_old_is_refused_and_left_as_it_is(store_url: str, admin: redis.Redis) -> None:
    async with open_store(store_url):
        pass
    admin.hset(SETTINGS, "format", 0)
    with pytest.raises(StoreMisfit, match=r"the store has format 0, .* Upgrade by way of the releases in between"):
        async with open_store(store_url):
            pass
    assert admin.hget(SETTINGS, "format") == b"0"


async def test_a_newer_version_raises_the_format_unless_its_config_does_not_fit(
    store_url: str, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(store_url, 16):
        pass
    monkeypatch.setattr("storage.open.FORMAT", NEWER)
    with pytest.raises(StoreMisfit, match="shards"):
        async with open_store(store_url, 2):
            pass
    assert admin.hget(SETTINGS, "format") == b"%d" % FORMAT
    async with open_store(store_url, 16):
        assert admin.hget(SETTINGS, "format") == b"%d" % NEWER


async def test_a_store_from_before_there_were_numbers_is_opened_with_what_it_holds(
    store_url: str, admin: redis.Redis
) -> None:
    async with open_store(store_url) as store:
        secret, taken = store.id_secret, await run(store)
        await append(store, taken, 3, 5)
        admin.hdel(SETTINGS, "format")
        admin.hdel(shard_of_id(store, taken.id).record(taken.id), "format")
    async with open_store(store_url) as store:
        assert store.id_secret == secret
        assert await log_of(store, taken.id) == numbered(5)
        expire_lease(admin, store, taken.id)
        again = await lease(store)
        assert (again.id, format_of(admin, store, again.id)) == (taken.id, b"%d" % FORMAT)
        await finish(store, again, 3)


# ---- A record's


async def test_every_record_carries_the_format_of_whoever_made_it(store: Store, admin: redis.Redis) -> None:
    kept = KeptResponse(
        id=new_response(shards=store.shards).id,
        owner=ALICE,
        model="gpt-5.2",
        created_at=0,
        status="completed",
        deployment="",
        request=b"{}",
        snapshot=b"{}",
        ttl_s=60.0,
        digits="1",
    )
    await store.responses.keep(kept)
    for response_id in (kept.id, await create(store)):
        assert format_of(admin, store, response_id) == b"%d" % FORMAT


async def test_a_job_of_a_newer_version_is_left_to_it_and_those_behind_it_are_not(
    store: Store, admin: redis.Redis
) -> None:
    newer = [await create(store) for _ in range(3)]
    for response_id in newer:
        become_newer(admin, store, response_id)
    assert await try_lease(store) is None
    mine, others = await create(store), await create(store, BOB)
    assert {(await lease(store)).id for _ in range(2)} == {mine, others}
    assert await try_lease(store) is None
    for response_id in newer:  # as the newer version sees it
        admin.hset(shard_of_id(store, response_id).record(response_id), "format", FORMAT)
    assert {(await lease(store)).id for _ in range(3)} == set(newer)


async def test_a_newer_job_whose_lease_ran_out_is_reclaimed_by_newer_workers_alone(
    store: Store, admin: redis.Redis
) -> None:
    newer = [await run(store) for _ in range(20)]
    mine = await run(store)
    for taken in (*newer, mine):
        expire_lease(admin, store, taken.id)
    for taken in newer:
        become_newer(admin, store, taken.id)
    assert (await lease(store)).id == mine.id
    assert await try_lease(store) is None
    assert (await record_of(store, newer[0].id)).status == "in_progress"


async def test_a_newer_response_is_known_but_its_content_is_not_touched(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    become_newer(admin, store, taken.id)
    record = await record_of(store, taken.id)
    assert (record.owner, record.status) == (ALICE, "in_progress")
    assert [one.id async for one in store.responses.owned(ALICE)] == [taken.id]
    looks: list[Callable[[], object]] = [
        lambda: store.responses.read(taken.id, START),
        lambda: store.responses.read_log(taken.id, START),
        lambda: store.responses.read_request(taken.id),
        lambda: cancel(store, taken.id),
        lambda: store.responses.delete(record, "token"),
    ]
    for look in looks:
        with pytest.raises(StoreUnavailable, match="a newer replica has it"):
            await look()  # type: ignore[misc]
    assert await record_of(store, taken.id) == record


async def test_whoever_runs_a_job_gives_it_its_own_format(
    store: Store, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    response_id = await create(store)
    monkeypatch.setattr("storage.jobs.FORMAT", NEWER)
    monkeypatch.setattr("storage.jobs.NEWEST_READ", NEWER)
    await lease(store)
    assert format_of(admin, store, response_id) == b"%d" % NEWER


async def test_a_format_that_was_damaged_by_hand_counts_as_none(store: Store, admin: redis.Redis) -> None:
    response_id = await create(store)
    admin.hset(shard_of_id(store, response_id).record(response_id), "format", "new")
    assert isinstance(await store.responses.read(response_id), Reading)
    assert (await lease(store)).id == response_id
