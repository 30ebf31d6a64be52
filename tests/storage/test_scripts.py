"""The scripts: each runs twice with the first outcome, on a full server as designed, and on one that forgot it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from storage import (
    Append,
    Counted,
    Created,
    CreateOutcome,
    Lease,
    Outcome,
    Spent,
    Step,
    Store,
    StoreFull,
    today,
)
from storage.scripts import (
    APPEND,
    CANCEL,
    CLAIM_CANCELS,
    CLAIM_DELIVERIES,
    COUNT_REQUEST,
    COUNT_USAGE,
    CREATE,
    DELETE,
    FIND,
    FINISH,
    LEASE,
    READ,
    READ_FEED,
    READ_HASHES,
    REDELIVER,
    RELEASE,
    RENEW,
    SETTLE_DELIVERY,
    Script,
)
from tests.support.keys import contents
from tests.support.servers import configured
from tests.support.stored import (
    ALICE,
    LEASE_S,
    append,
    cancel,
    create,
    expire_lease,
    finish,
    frames,
    lease,
    log_of,
    new_response,
    numbered,
    record_of,
    renew,
    run,
    try_lease,
)

Call = Callable[[], Awaitable[object]]

ALL = (
    CREATE,
    LEASE,
    RENEW,
    APPEND,
    FINISH,
    CANCEL,
    RELEASE,
    DELETE,
    READ,
    FIND,
    CLAIM_CANCELS,
    READ_FEED,
    CLAIM_DELIVERIES,
    SETTLE_DELIVERY,
    REDELIVER,
    COUNT_REQUEST,
    COUNT_USAGE,
    READ_HASHES,
)
LUA = Path(__file__).parents[2] / "storage" / "lua"

# ---- What they may do


@pytest.mark.parametrize("script", [LEASE, RENEW, FINISH, CANCEL, RELEASE, DELETE, COUNT_REQUEST])
def test_what_ends_a_job_or_limits_requests_may_do_so_on_a_full_server(script: Script) -> None:
    assert script.text.startswith("#!lua flags=allow-oom\n")


@pytest.mark.parametrize("script", [CREATE, APPEND, COUNT_USAGE])
def test_what_takes_more_may_not(script: Script) -> None:
    assert script.text.startswith("#!lua\n")


@pytest.mark.parametrize("script", [READ, FIND, READ_FEED, READ_HASHES], ids=lambda script: script.name)
def test_those_that_read_are_refused_by_a_replica_and_served_by_a_full_server(script: Script) -> None:
    assert script.text.startswith("#!lua flags=allow-oom\n")
    body = (LUA / f"{script.name}.lua").read_text()
    assert set(re.findall(r"redis\.p?call\('(\w+)'", body)) <= {"HMGET", "HEXISTS", "HGETALL", "XINFO", "XRANGE"}, (
        "they write nothing"
    )


# ---- Names


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_a_script_finds_what_it_is_given_by_name_and_uses_it(script: Script) -> None:
    body = (LUA / f"{script.name}.lua").read_text()
    code = re.sub(r"--.*", "", body)
    assert not re.search(r"\b(KEYS|ARGV)\b", code), "by name, not by place"
    for name in (*script.keys.names, *script.args.names):
        assert re.search(rf"\b{name}\b", code) or name == "whole", f"{name} is not used"


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_a_script_that_makes_names_of_keys_wants_the_slot_whole(script: Script) -> None:
    body = (LUA / f"{script.name}.lua").read_text()
    makes_names = "idempotency_of" in body or any(name.endswith("_prefix") for name in script.args.names)
    assert makes_names == ("whole" in script.keys.names)


async def test_a_wrong_or_missing_name_is_refused_before_anything_is_sent() -> None:
    client: Any = None
    given = {"record": "r", "leases": "l", "queue": "q", "rotation": "o", "id": "i", "token": "t", "wake": "w"}
    with pytest.raises(TypeError, match=r"release\.lua is called with other names: \['taken_back'\]"):
        await RELEASE.run(client, **given)
    with pytest.raises(TypeError, match=r"other names: \['wakes'\]"):
        await RELEASE.run(client, **given, taken_back=0, wakes="w")


def test_a_header_is_read_as_it_is_written() -> None:
    assert CREATE.keys.names[-1] == "idempotency"
    assert CREATE.args.names[-4:] == ("feed_most", "feed_ms", "tally_ms", "fields")
    for line in (
        "local idempotency = KEYS[12]\n",
        "local opening = ARGV[4]\n",
        "local ttl_ms = tonumber(ARGV[13])\n",
        "local fields = from(ARGV, 20)\n",
    ):
        assert line in CREATE.text
    assert APPEND.args.names == ("lease_ms", "record_prefix", "log_prefix", "moved_prefix", "batches")


# ---- Running twice


async def _create(store: Store) -> Call:
    new = new_response()
    return lambda: store.responses.create(new)


async def _create_with_key(store: Store) -> Call:
    new = new_response(idempotency_key="k", body_digest="b")
    return lambda: store.responses.create(new)


async def _create_replayed(store: Store) -> Call:
    await create(store, idempotency_key="k", body_digest="b")
    return await _create_with_key(store)


async def _lease(store: Store) -> Call:
    await create(store)
    await create(store)
    return lambda: lease(store, token="t1")


async def _renew(store: Store) -> Call:
    taken = await run(store)
    return lambda: renew(store, taken)


async def _append(store: Store) -> Call:
    taken = await run(store)
    return lambda: append(store, taken, 3, 5, provider_id="resp_1")


async def _finish(store: Store) -> Call:
    taken = await run(store, idempotency_key="k", body_digest="b")
    return lambda: finish(store, taken, 3, "failed", provider_id="resp_1")


async def _cancel_queued(store: Store) -> Call:
    record = await record_of(store, await create(store))
    return lambda: store.responses.cancel(record, b"[", b" cancelled]")


async def _cancel_running(store: Store) -> Call:
    record = await record_of(store, (await run(store)).id)
    return lambda: store.responses.cancel(record, b"[", b" cancelled]")


async def _release(store: Store) -> Call:
    taken = await run(store)
    return lambda: store.jobs.release(taken)


async def _delete(store: Store) -> Call:
    record = await record_of(store, (await run(store)).id)
    return lambda: store.responses.delete(record, "t1")


async def _count_request(store: Store) -> Call:
    await store.rates.count(ALICE, b"t0", 2)
    return lambda: store.rates.count(ALICE, b"t1", 2)


async def _count_usage(store: Store) -> Call:
    counts = [
        Counted(ALICE, today(), Spent("gpt-5.2", input=3), "t1", 60),
        Counted(ALICE, today(), Spent("gpt-5.2", cost=7), "t2", 60),
    ]
    return lambda: store.usage.count(store.usage.shards.of(ALICE), counts)


STEPS = [
    _create,
    _create_with_key,
    _create_replayed,
    _lease,
    _renew,
    _append,
    _finish,
    _cancel_queued,
    _cancel_running,
    _release,
    _delete,
    _count_request,
    _count_usage,
]


@pytest.mark.parametrize("prepare", STEPS, ids=[step.__name__.strip("_") for step in STEPS])
async def test_a_call_that_runs_twice_has_the_first_outcome_and_changes_nothing_more(
    store: Store, admin: redis.Redis, prepare: Callable[[Store], Awaitable[Call]]
) -> None:
    call = await prepare(store)
    first, after_first = await call(), contents(admin)
    second, after_second = await call(), contents(admin)
    assert second == first
    assert after_second == after_first


async def test_an_append_that_arrives_again_after_later_ones_changes_nothing(store: Store) -> None:
    taken = await run(store)
    await append(store, taken, 3, 5)
    await append(store, taken, 6, 6)
    assert await append(store, taken, 3, 5) == Step(Outcome.OK, 6)
    assert await log_of(store, taken.id) == numbered(6)


async def test_a_finish_that_arrives_again_with_another_status_is_refused(store: Store) -> None:
    taken = await run(store)
    assert await finish(store, taken, 3, "completed") == Step(Outcome.OK, 3)
    assert await finish(store, taken, 3, "failed") == Step(Outcome.OVER, 3)
    assert (await record_of(store, taken.id)).status == "completed"


async def test_a_release_that_arrives_again_does_not_take_the_job_from_its_next_worker(
    store: Store, admin: redis.Redis
) -> None:
    former = await run(store)
    await store.jobs.release(former)
    present = await lease(store)
    before = contents(admin)
    assert await store.jobs.release(former) is Outcome.OK
    assert contents(admin) == before
    assert await renew(store, present) is Outcome.OK


async def _ended(store: Store, admin: redis.Redis, taken: Lease) -> None:
    await finish(store, taken, 3)


async def _cancelled(store: Store, admin: redis.Redis, taken: Lease) -> None:
    await cancel(store, taken.id)


async def _deleted(store: Store, admin: redis.Redis, taken: Lease) -> None:
    await store.responses.delete(await record_of(store, taken.id), "t1")


async def _released(store: Store, admin: redis.Redis, taken: Lease) -> None:
    await store.jobs.release(taken)


async def _reclaimed(store: Store, admin: redis.Redis, taken: Lease) -> None:
    expire_lease(admin, store, taken.id)
    assert (await lease(store)).id == taken.id


LOSSES = [_ended, _cancelled, _deleted, _released, _reclaimed]


@pytest.mark.parametrize("lose", LOSSES, ids=[step.__name__.strip("_") for step in LOSSES])
async def test_a_lease_that_arrives_again_takes_no_other_job_when_the_first_is_lost(
    store: Store, admin: redis.Redis, lose: Callable[[Store, redis.Redis, Lease], Awaitable[None]]
) -> None:
    await create(store)
    taken = await lease(store, token="t1")
    await lose(store, admin, taken)
    await create(store)
    before = contents(admin)
    assert await try_lease(store, token="t1") is None
    assert contents(admin) == before


# ---- A full server


@pytest.mark.whole_server
async def test_a_full_server_takes_nothing_more_but_lets_every_job_end(store: Store, admin: redis.Redis) -> None:
    to_finish, to_cancel, to_delete, to_release = [await run(store) for _ in range(4)]
    queued = await create(store)
    used = admin.info("memory")["used_memory"]
    with configured(admin, maxmemory_policy="noeviction", maxmemory=used // 2):
        before = contents(admin)
        new = new_response()
        with pytest.raises(StoreFull):
            await store.responses.create(new)
        assert isinstance(await append(store, to_finish, 3, 3, base=b"{}"), StoreFull)
        assert contents(admin) == before

        assert await renew(store, to_finish) is Outcome.OK
        assert await finish(store, to_finish, 3, "failed") == Step(Outcome.OK, 3)
        assert await cancel(store, to_cancel.id) == "cancelled"
        assert await store.responses.delete(await record_of(store, to_delete.id), "t1")
        assert await store.jobs.release(to_release) is Outcome.OK
        assert {(await lease(store)).id for _ in range(2)} == {queued, to_release.id}
        assert await log_of(store, to_finish.id) == numbered(3, "failed")
    assert await store.responses.create(new) == Created(CreateOutcome.CREATED, new.id)


# ---- A server that lost its scripts


async def test_a_server_that_forgot_the_scripts_is_told_them_again(store: Store, admin: redis.Redis) -> None:
    async def after_flush(call: Awaitable[object]) -> object:
        admin.script_flush()
        return await call

    new = new_response()
    assert await after_flush(store.responses.create(new)) == Created(CreateOutcome.CREATED, new.id)
    admin.script_flush()
    taken = await lease(store)
    assert await after_flush(append(store, taken, 3, 4)) == Step(Outcome.OK, 4)
    assert await after_flush(renew(store, taken)) is Outcome.OK
    assert await after_flush(store.jobs.release(taken)) is Outcome.OK
    taken = await lease(store)
    assert await after_flush(finish(store, taken, 3)) == Step(Outcome.OK, 3)
    assert await after_flush(log_of(store, new.id)) == numbered(3, "completed")
    record = await record_of(store, new.id)
    assert await after_flush(store.responses.cancel(record, b"", b"")) == "over"
    assert await after_flush(store.responses.delete(record, "t1")) is True


async def test_a_whole_pipeline_is_sent_again_in_order_to_a_server_that_forgot_the_script(
    store: Store, admin: redis.Redis
) -> None:
    one, other = await run(store), await run(store)
    batches = [(one, 3), (other, 3), (one, 4), (one, 5), (other, 4)]
    admin.script_flush()
    steps = await store.jobs.append_many(
        [Append(taken, number, number, frames(number, number), number=number) for taken, number in batches], LEASE_S
    )
    assert steps == [Step(Outcome.OK, number) for _, number in batches]
    assert await log_of(store, one.id) == numbered(5)
    assert await log_of(store, other.id) == numbered(4)


async def test_an_empty_pipeline_is_no_round_trip_that_fails(store: Store) -> None:
    assert await store.jobs.append_many([], LEASE_S) == []
