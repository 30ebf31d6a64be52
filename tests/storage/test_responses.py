"""Responses as clients know them: create once, read, list, cancel, delete, and how long each is kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import redis

from storage import (
    START,
    Batch,
    CancelOutcome,
    Created,
    CreateOutcome,
    Cursor,
    NewResponse,
    Outcome,
    Reading,
    Record,
    Step,
    Store,
)
from storage.keys import IDEMPOTENCY_TTL_MS, INDEX_TTL_MS
from tests.support.ears import listening
from tests.support.keys import contents
from tests.support.stored import (
    ALICE,
    BOB,
    a_millisecond,
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
    run,
    shard_of_id,
    told,
    try_lease,
)
from tests.support.waiting import wait_until

# ---- Create


async def test_a_new_response_is_queued_with_events_0_and_1(store: Store) -> None:
    new = new_response(BOB, model="claude", created_at=1_700_000_000, stream=True, request=b"\xff\x00{}")
    assert await store.responses.create(new) == Created(CreateOutcome.CREATED, new.id)
    record = Record(new.id, BOB, "queued", "claude", 1_700_000_000, stream=True, cursor=Cursor(1, 1))
    assert await store.responses.find(new.id) == record
    reading = Reading(record, request=b"\xff\x00{}", batches=(Batch(Cursor(1, 1), frames(0, 1)),))
    assert await store.responses.read(new.id) == reading
    assert await store.responses.read_request(new.id) == b"\xff\x00{}"
    assert await store.responses.read(new.id, request=False) == replace(reading, request=b"")


async def test_a_create_that_is_sent_many_times_makes_one_response_and_one_job(store: Store) -> None:
    new = new_response()
    outcomes = await asyncio.gather(*(store.responses.create(new) for _ in range(30)))
    assert set(outcomes) == {Created(CreateOutcome.CREATED, new.id)}
    assert [one.id async for one in store.responses.owned(ALICE)] == [new.id]
    assert (await lease(store)).id == new.id
    assert await try_lease(store) is None


async def test_a_create_that_arrives_again_after_the_delete_brings_nothing_back(
    store: Store, admin: redis.Redis
) -> None:
    new = new_response(idempotency_key="k", body_digest="b")
    await store.responses.create(new)
    await store.responses.delete(await record_of(store, new.id), "t")
    before = contents(admin)
    assert await store.responses.create(new) == Created(CreateOutcome.CREATED, new.id)
    assert contents(admin) == before
    assert await store.responses.find(new.id) is None


async def test_what_nobody_created_is_not_there(store: Store) -> None:
    assert await store.responses.find("litellm_poll_nobody") is None
    assert await store.responses.read("litellm_poll_nobody") is None
    assert await store.responses.read_log("litellm_poll_nobody", START) is None
    assert await store.responses.read_request("litellm_poll_nobody") is None
    assert await store.responses.find_many(["litellm_poll_nobody"]) == [None]
    assert await store.responses.find_many([]) == []


# ---- Idempotency keys


def keyed(key: str = "k", body: str = "b", owner: str = ALICE, **changes: Any) -> NewResponse:
    return new_response(owner, idempotency_key=key, body_digest=body, **changes)


async def test_the_same_key_and_body_find_the_first_response(store: Store) -> None:
    first, second = keyed(), keyed()
    assert await store.responses.create(first) == Created(CreateOutcome.CREATED, first.id)
    assert await store.responses.create(second) == Created(CreateOutcome.REPLAYED, first.id)
    assert await store.responses.find(second.id) is None
    assert [one.id async for one in store.responses.owned(ALICE)] == [first.id]


async def test_the_same_key_and_another_body_are_refused(store: Store, admin: redis.Redis) -> None:
    first = keyed()
    await store.responses.create(first)
    before = contents(admin)
    assert await store.responses.create(keyed(body="another")) == Created(CreateOutcome.REUSED, first.id)
    assert contents(admin) == before


async def test_of_many_creates_with_one_key_at_the_same_instant_one_is_made(store: Store) -> None:
    outcomes = await asyncio.gather(*(store.responses.create(keyed()) for _ in range(40)))
    assert Counter(one.outcome for one in outcomes) == {CreateOutcome.CREATED: 1, CreateOutcome.REPLAYED: 39}
    assert len({one.id for one in outcomes}) == 1


async def test_the_keys_of_two_owners_and_two_keys_of_one_are_independent(store: Store) -> None:
    new = [keyed(), keyed(owner=BOB), keyed("another"), keyed("K"), keyed(" k\r\n{}\x00")]
    outcomes = [(await store.responses.create(one)).outcome for one in new]
    assert set(outcomes) == {CreateOutcome.CREATED}


async def test_a_key_still_finds_its_response_when_that_has_ended(store: Store) -> None:
    first = keyed()
    await store.responses.create(first)
    await finish(store, await lease(store), 3)
    assert await store.responses.create(keyed()) == Created(CreateOutcome.REPLAYED, first.id)


async def test_after_a_delete_the_key_starts_a_new_run(store: Store) -> None:
    first, second = keyed(), keyed(body="another")
    await store.responses.create(first)
    await store.responses.delete(await record_of(store, first.id), "t")
    assert await store.responses.create(second) == Created(CreateOutcome.CREATED, second.id)


async def test_after_the_response_expired_the_key_starts_a_new_run(store: Store) -> None:
    first, second = keyed(ttl_s=0.02), keyed(body="another")
    await store.responses.create(first)
    await cancel(store, first.id)
    await until_gone(store, first.id)
    assert await store.responses.create(second) == Created(CreateOutcome.CREATED, second.id)


async def test_a_key_whose_response_was_evicted_starts_a_new_run(store: Store, admin: redis.Redis) -> None:
    first, second = keyed(), keyed()
    await store.responses.create(first)
    shard = shard_of_id(store, first.id)
    admin.delete(shard.record(first.id), shard.log(first.id))
    await a_millisecond(admin)
    assert await store.responses.create(second) == Created(CreateOutcome.CREATED, second.id)
    assert await store.responses.create(keyed()) == Created(CreateOutcome.REPLAYED, second.id)
    assert (await lease(store)).id == second.id


# ---- Times to live


def ttl_ms(store: Store, admin: redis.Redis, new: NewResponse) -> dict[str, int]:
    """Of every key that belongs to this one response."""
    shard = shard_of_id(store, new.id)
    keys = {
        "record": shard.record(new.id),
        "log": shard.log(new.id),
        "idempotency": shard.idempotency(new.owner, new.idempotency_key),
    }
    ttls: dict[str, int] = {}
    for name, key in keys.items():
        answer = admin.pttl(key)
        assert isinstance(answer, int)
        ttls[name] = answer
    return ttls


@pytest.mark.parametrize("end", ["finish", "cancel", "cancel while queued"])
@pytest.mark.parametrize("ttl_s", [600.0, 3600.0])
async def test_when_a_response_has_ended_all_its_keys_have_the_same_time_to_live(
    store: Store, admin: redis.Redis, end: str, ttl_s: float
) -> None:
    new = keyed(ttl_s=ttl_s)
    await store.responses.create(new)
    if end == "finish":
        await finish(store, await lease(store), 3)
    elif end == "cancel":
        await append(store, await lease(store), 3, 4)
        await cancel(store, new.id)
    else:
        await cancel(store, new.id)
    ttls = ttl_ms(store, admin, new)
    assert max(ttls.values()) <= ttl_s * 1000
    assert min(ttls.values()) > ttl_s * 1000 - 1000


async def test_queued_and_running_responses_never_expire(store: Store, admin: redis.Redis) -> None:
    new = keyed(ttl_s=0.001)
    await store.responses.create(new)
    assert not_expiring(store, admin, new)
    taken = await lease(store)
    assert not_expiring(store, admin, new)
    await append(store, taken, 3, 4, base=b"{}")
    expire_lease(admin, store, new.id)
    taken = await lease(store)
    assert taken.epoch == 2
    assert not_expiring(store, admin, new)
    await store.jobs.release(taken)
    assert not_expiring(store, admin, new)


def not_expiring(store: Store, admin: redis.Redis, new: NewResponse) -> bool:
    ttls = ttl_ms(store, admin, new)
    return ttls["record"] == ttls["log"] == -1


async def test_an_idempotency_key_lives_for_a_day_at_most_however_long_the_response_is_kept(
    store: Store, admin: redis.Redis
) -> None:
    new = keyed(ttl_s=7 * 24 * 3600.0)
    await store.responses.create(new)
    assert 0 < ttl_ms(store, admin, new)["idempotency"] <= IDEMPOTENCY_TTL_MS
    await cancel(store, new.id)
    ttls = ttl_ms(store, admin, new)
    assert 0 < ttls["idempotency"] <= IDEMPOTENCY_TTL_MS
    assert ttls["record"] > 6 * 24 * 3600 * 1000


async def test_the_index_of_an_owner_outlives_every_response_that_it_names(store: Store, admin: redis.Redis) -> None:
    kept_s = INDEX_TTL_MS / 1000 + 3600
    taken = await run(store, ttl_s=kept_s)
    shard = shard_of_id(store, taken.id)
    assert admin.pttl(shard.owned(ALICE)) > INDEX_TTL_MS - 1000
    await finish(store, taken, 3)
    for key in (shard.owned(ALICE), shard.ended(ALICE)):
        assert admin.pttl(key) > (kept_s - 1) * 1000


async def test_when_its_time_has_come_nothing_is_left_of_a_response(store: Store, admin: redis.Redis) -> None:
    new = keyed(ttl_s=0.02)
    await store.responses.create(new)
    await finish(store, await lease(store), 3)
    await until_gone(store, new.id)
    await wait_until(lambda: set(ttl_ms(store, admin, new).values()) == {-2})


async def until_gone(store: Store, response_id: str) -> None:
    async def is_gone() -> bool:
        return await store.responses.find(response_id) is None

    await wait_until(is_gone)


# ---- Reading


async def batched(store: Store) -> str:
    """A running response whose log has batches that end with 1, 2, 5 and 9."""
    taken = await run(store)
    await append(store, taken, 3, 5, base=b"{base}")
    await append(store, taken, 6, 9)
    return taken.id


@pytest.mark.parametrize(
    ("after", "batches"),
    [
        (START, [1, 2, 5, 9]),
        (Cursor(1, 0), [1, 2, 5, 9]),
        (Cursor(1, 1), [2, 5, 9]),
        (Cursor(1, 3), [5, 9]),
        (Cursor(1, 5), [9]),
        (Cursor(1, 8), [9]),
        (Cursor(1, 9), []),
        (Cursor(1, 1000), []),
    ],
)
async def test_a_reader_gets_every_batch_that_holds_something_behind_its_cursor(
    store: Store, after: Cursor, batches: list[int]
) -> None:
    response_id = await batched(store)
    for reading in (
        await store.responses.read_log(response_id, after),
        await store.responses.read(response_id, after),
    ):
        assert reading is not None
        assert [batch.cursor for batch in reading.batches] == [Cursor(1, last) for last in batches]


async def test_a_log_is_read_in_pieces_and_nothing_is_lost_between_them(store: Store) -> None:
    response_id = await batched(store)
    cursor, seen = START, b""
    for _ in range(4):
        reading = await store.responses.read_log(response_id, cursor, limit=1)
        assert reading is not None
        (batch,) = reading.batches
        cursor, seen = batch.cursor, seen + batch.frames
    assert told(seen) == numbered(9)


async def test_the_log_can_be_read_whatever_the_status_but_an_object_is_read_from_its_snapshot(store: Store) -> None:
    response_id = await batched(store)
    partial = await store.responses.read(response_id)
    assert partial is not None
    assert (partial.base, partial.snapshot, len(partial.batches)) == (b"{base}", b"", 4)
    await store.responses.delete(await record_of(store, response_id), "t")

    taken = await run(store)
    await finish(store, taken, 3)
    final = await store.responses.read(taken.id)
    assert final is not None
    assert (final.snapshot, final.batches) == (b'{"status": "completed"}', ())
    assert await log_of(store, taken.id) == numbered(3, "completed")


async def test_a_cancelled_response_is_read_from_its_log(store: Store) -> None:
    response_id = await batched(store)
    await cancel(store, response_id)
    reading = await store.responses.read(response_id)
    assert reading is not None
    assert (reading.record.status, reading.base, reading.snapshot) == ("cancelled", b"{base}", b"")
    assert told(b"".join(batch.frames for batch in reading.batches)) == numbered(10, "cancelled")


async def test_a_cursor_of_an_older_epoch_gives_the_whole_new_one(store: Store, admin: redis.Redis) -> None:
    response_id = await batched(store)
    expire_lease(admin, store, response_id)
    second = await lease(store)
    await append(store, second, 3, 3)
    for after in (Cursor(1, 1), Cursor(1, 9)):
        assert await log_of(store, response_id, after) == numbered(3)
    assert await log_of(store, response_id, Cursor(2, 2)) == ["3"]


# ---- The index of an owner


async def test_an_owner_sees_his_own_responses_newest_first(store: Store, admin: redis.Redis) -> None:
    created = []
    for owner in (ALICE, BOB, ALICE, ALICE):
        created.append(await create(store, owner))
        await a_millisecond(admin)
    listed = [record async for record in store.responses.owned(ALICE)]
    assert [record.id for record in listed] == [created[3], created[2], created[0]]
    assert {record.owner for record in listed} == {ALICE}
    assert [record async for record in store.responses.owned("nobody")] == []


async def test_a_list_is_continued_behind_any_of_its_ids_over_many_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.responses.PAGE", 3)
    for _ in range(10):
        await create(store)
    whole = [record.id async for record in store.responses.owned(ALICE)]
    assert len(set(whole)) == 10
    for place, response_id in enumerate(whole):
        assert [one.id async for one in store.responses.owned(ALICE, response_id)] == whole[place + 1 :]
    assert [one async for one in store.responses.owned(ALICE, "litellm_poll_nobody")] == []


async def test_expired_responses_are_passed_over_and_leave_the_index(store: Store, admin: redis.Redis) -> None:
    kept = await create(store)
    short = [await create_and_cancel(store, ttl_s=0.02) for _ in range(5)]
    for response_id in short:
        await until_gone(store, response_id)
    assert [one.id async for one in store.responses.owned(ALICE)] == [kept]
    later = await create(store)
    shard = shard_of_id(store, kept)
    assert names(admin, shard.owned(ALICE)) == {kept, later}
    assert names(admin, shard.ended(ALICE)) == set()


async def create_and_cancel(store: Store, **changes: Any) -> str:
    response_id = await create(store, **changes)
    await cancel(store, response_id)
    return response_id


def names(admin: redis.Redis, key: str) -> set[str]:
    members: Any = admin.zrange(key, 0, -1)
    return {member.decode() for member in members}


# ---- Cancel


async def test_a_queued_response_is_cancelled_for_good_and_leaves_the_queue(store: Store, admin: redis.Redis) -> None:
    response_id = await create(store)
    assert await cancel(store, response_id) is CancelOutcome.CANCELLED
    record = await record_of(store, response_id)
    assert (record.status, record.cursor) == ("cancelled", Cursor(1, 2))
    assert await log_of(store, response_id) == numbered(2, "cancelled")
    assert admin.exists(shard_of_id(store, response_id).queue(ALICE)) == 0
    assert await try_lease(store) is None


async def test_the_terminal_event_of_a_cancel_is_stitched_around_the_next_number(
    store: Store, admin: redis.Redis
) -> None:
    response_id = await batched(store)
    record = await record_of(store, response_id)
    head, tail = b'data: {"sequence_number":', b',"type":"response.failed"}\n\n'
    assert await store.responses.cancel(record, head, tail) is CancelOutcome.CANCELLED
    reading = await store.responses.read_log(response_id, Cursor(1, 9))
    assert reading is not None
    assert reading.batches == (Batch(Cursor(1, 10), head + b"10" + tail),)
    assert admin.exists(shard_of_id(store, response_id).leases) == 0


async def test_a_cancel_counts_from_the_log_and_not_from_the_record_that_the_caller_read(store: Store) -> None:
    taken = await run(store)
    seen = await record_of(store, taken.id)
    await append(store, taken, 3, 6)
    assert await store.responses.cancel(seen, b"[", b" cancelled]") is CancelOutcome.CANCELLED
    assert await log_of(store, taken.id) == numbered(7, "cancelled")


async def test_cancelling_twice_at_the_same_instant_writes_one_terminal_event(store: Store) -> None:
    taken = await run(store)
    record = await record_of(store, taken.id)
    outcomes = await asyncio.gather(*(store.responses.cancel(record, b"[", b" cancelled]") for _ in range(10)))
    assert set(outcomes) == {CancelOutcome.CANCELLED}
    assert await log_of(store, taken.id) == numbered(3, "cancelled")


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete"])
async def test_what_has_ended_can_not_be_cancelled(store: Store, admin: redis.Redis, status: str) -> None:
    taken = await run(store)
    await finish(store, taken, 3, status)
    before = contents(admin)
    assert await cancel(store, taken.id) is CancelOutcome.OVER
    assert contents(admin) == before


@pytest.mark.whole_server
async def test_a_cancel_and_a_delete_revoke_the_run_in_every_process(store: Store) -> None:
    async with listening(store) as (_, notes):
        cancelled, deleted = await run(store), await run(store)
        await cancel(store, cancelled.id)
        await store.responses.delete(await record_of(store, deleted.id), "t")
        await wait_until(lambda: notes.revocations == [cancelled.id, deleted.id])


# ---- Delete


@pytest.mark.parametrize("state", ["queued", "running", "ended"])
async def test_of_a_deleted_response_nothing_is_left_but_a_tombstone(
    store: Store, admin: redis.Redis, state: str
) -> None:
    new = keyed()
    await store.responses.create(new)
    taken = None if state == "queued" else await lease(store)
    if taken and state == "ended":
        await finish(store, taken, 3)
    assert await store.responses.delete(await record_of(store, new.id), "t")
    shard = shard_of_id(store, new.id)
    left = [key for key, value in contents(admin).items() if new.id in key or new.id in str(value)]
    grants = [key for key in left if ":grant:" in key]
    assert sorted(left) == sorted([*grants, shard.tombstone(new.id), shard.feed]), "and what the feed told of it"
    assert 0 < admin.pttl(shard.tombstone(new.id)) <= 60_000
    assert await store.responses.find(new.id) is None
    assert [one async for one in store.responses.owned(ALICE)] == []
    assert await try_lease(store) is None


async def test_a_delete_leaves_an_idempotency_key_that_names_another_response_by_now(
    store: Store, admin: redis.Redis
) -> None:
    old, new = keyed(), keyed()
    await store.responses.create(old)
    admin.delete(shard_of_id(store, old.id).idempotency(ALICE, "k"))  # its day has passed
    await store.responses.create(new)
    await store.responses.delete(await record_of(store, old.id), "t")
    assert await store.responses.create(keyed()) == Created(CreateOutcome.REPLAYED, new.id)


async def test_the_end_of_a_response_leaves_an_idempotency_key_that_names_another_one_by_now(
    store: Store, admin: redis.Redis
) -> None:
    old, new = keyed(ttl_s=60.0), keyed()
    await store.responses.create(old)
    admin.delete(shard_of_id(store, old.id).idempotency(ALICE, "k"))
    await store.responses.create(new)
    await cancel(store, old.id)
    assert ttl_ms(store, admin, new)["idempotency"] > 3600 * 1000


async def test_a_delete_succeeds_once_and_again_for_the_same_caller_only(store: Store) -> None:
    taken = await run(store)
    record = await record_of(store, taken.id)
    tokens = [uuid4().hex for _ in range(5)]
    answers = await asyncio.gather(*(store.responses.delete(record, token) for token in tokens))
    assert sorted(answers) == [False] * 4 + [True]
    assert [await store.responses.delete(record, token) for token in tokens] == answers


async def test_of_a_delete_and_an_append_at_the_same_instant_nothing_is_left(store: Store, admin: redis.Redis) -> None:
    for _ in range(10):
        taken = await run(store)
        record = await record_of(store, taken.id)
        deleted, step = await asyncio.gather(
            store.responses.delete(record, uuid4().hex), append(store, taken, 3, 3, base=b"{}")
        )
        assert deleted
        assert step in (Step(Outcome.OK, 3), Step(Outcome.GONE, -1))
        shard = shard_of_id(store, taken.id)
        assert admin.exists(shard.record(taken.id), shard.log(taken.id), shard.leases) == 0


async def test_an_owner_has_no_more_in_flight_than_allowed_and_others_do_not_mind(store: Store) -> None:
    def limited(owner: str = ALICE) -> NewResponse:
        return new_response(owner, most_in_flight=3)

    made = [limited() for _ in range(3)]
    outcomes = await asyncio.gather(*(store.responses.create(new) for new in [*made, limited(), limited()]))
    assert Counter(one.outcome for one in outcomes) == {CreateOutcome.CREATED: 3, CreateOutcome.BUSY: 2}
    refused = await store.responses.create(limited())
    assert (refused.outcome, refused.retry_after_s) == (CreateOutcome.BUSY, 60), "nothing ended in the last minute"
    assert (await store.responses.create(limited(BOB))).outcome is CreateOutcome.CREATED
    accepted = next(one.id for one in outcomes if one.outcome is CreateOutcome.CREATED)
    assert await store.responses.create(next(new for new in made if new.id == accepted)) == Created(
        CreateOutcome.CREATED, accepted
    ), "a repeat is no new one"
    record = await store.responses.find(accepted)
    assert record is not None
    await store.responses.cancel(record, b"", b"")
    assert (await store.responses.create(limited())).outcome is CreateOutcome.CREATED
    refused = await store.responses.create(limited())
    assert (refused.outcome, refused.retry_after_s) == (CreateOutcome.BUSY, 60), "one ended in the last minute"


async def test_a_record_removed_by_hand_does_not_take_a_place_for_ever(store: Store, admin: redis.Redis) -> None:
    for _ in range(2):
        new = new_response(ALICE, most_in_flight=1)
        assert (await store.responses.create(new)).outcome is CreateOutcome.CREATED
        admin.delete(shard_of_id(store, new.id).record(new.id))
    assert await try_lease(store) is None, "nor is its log left behind"


async def test_no_more_are_queued_than_allowed_of_all_owners_together(store: Store) -> None:
    def limited(owner: str) -> NewResponse:
        return new_response(owner, most_queued=2)

    assert (await store.responses.create(limited(ALICE))).outcome is CreateOutcome.CREATED
    assert (await store.responses.create(limited(BOB))).outcome is CreateOutcome.CREATED
    assert (await store.responses.create(limited(ALICE))).outcome is CreateOutcome.FULL
    await lease(store)
    assert (await store.responses.create(limited(ALICE))).outcome is CreateOutcome.CREATED


async def test_opening_events_are_packed_as_all_others_are(store: Store, admin: redis.Redis) -> None:
    long = b'event: response.created\ndata: {"instructions":"' + b"be kind and brief " * 50_000 + b'"}\n\n'
    new = new_response(shards=store.shards, opening=long + long, started=long)
    await store.responses.create(new)
    shard = shard_of_id(store, new.id)
    kept = sum(int(admin.memory_usage(key) or 0) for key in (shard.record(new.id), shard.log(new.id)))
    assert kept < len(long) / 2
    reading = await store.responses.read_log(new.id, START)
    assert reading is not None
    assert b"".join(batch.frames for batch in reading.batches) == long + long
    taken = await lease(store, shard=shard.n)
    reading = await store.responses.read_log(new.id, START)
    assert reading is not None
    assert reading.batches[-1].frames == long
    assert taken.last == 2


@pytest.mark.parametrize("end", ["finish", "cancel", "delete", "set aside"])
async def test_a_clients_key_is_gone_with_the_step_that_ends_its_response(
    end: str, store: Store, admin: redis.Redis
) -> None:
    response_id = await create(store, client_key="sealed-key")
    assert "sealed-key" in str(contents(admin))
    taken = await lease(store)
    assert taken.client_key == "sealed-key"
    assert await store.jobs.release(taken) is Outcome.OK
    taken = await lease(store)
    assert taken.client_key == "sealed-key", "whoever goes on has it too"
    match end:
        case "finish":
            assert (await finish(store, taken, 3)).outcome is Outcome.OK
        case "cancel":
            assert await cancel(store, response_id) is CancelOutcome.CANCELLED
        case "delete":
            assert await store.responses.delete(await record_of(store, response_id), uuid4().hex)
        case _:
            expire_lease(admin, store, response_id)
            admin.hset(shard_of_id(store, response_id).record(response_id), "epoch", "broken")
            assert await try_lease(store) is None
    assert "sealed-key" not in str(contents(admin))
