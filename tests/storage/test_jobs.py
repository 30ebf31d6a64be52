"""Jobs: the queue and its fairness, leases and their fencing, what a rerun may do."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from uuid import uuid4

import pytest
import redis

from storage import (
    Append,
    CancelOutcome,
    Counts,
    Cursor,
    Finish,
    Lease,
    Leased,
    Outcome,
    Step,
    Store,
    Verdict,
)
from storage.keys import Shards, shard_of
from tests.support.keys import contents
from tests.support.stored import (
    ALICE,
    BOB,
    CAROL,
    LEASE_S,
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
    renew,
    run,
    shard_of_id,
    terminal,
    try_lease,
)

# ---- The queue


async def test_a_lease_says_all_that_a_run_needs(store: Store) -> None:
    new = new_response(
        BOB,
        stream=True,
        model="claude",
        created_at=1_700_000_000,
        request=b"\xff\x00{}",
        pinned="d1",
        previous="r0",
    )
    await store.responses.create(new)
    assert await try_lease(store, token="t1") == Lease(
        id=new.id,
        token="t1",
        owner=BOB,
        verdict=Verdict.RUN,
        epoch=1,
        attempt=1,
        last=2,
        stream=True,
        created_at=1_700_000_000,
        model="claude",
        pinned="d1",
        previous="r0",
        ran_on="",
        provider_id="",
        upstream_last=-1,
        request=b"\xff\x00{}",
    )


async def test_an_empty_queue_gives_nothing(store: Store) -> None:
    assert await try_lease(store) is None


async def test_the_jobs_of_one_owner_are_leased_in_the_order_of_their_creation(
    store: Store, admin: redis.Redis
) -> None:
    created = []
    for _ in range(4):
        created.append(await create(store))
        await a_millisecond(admin)
    assert [(await lease(store)).id for _ in created] == created


async def test_every_job_is_leased_once_however_many_workers_ask_at_the_same_instant(store: Store) -> None:
    created = await asyncio.gather(*(create(store, owner) for owner in (ALICE, BOB) * 40))
    taken = await asyncio.gather(*(try_lease(store) for _ in range(120)))
    assert Counter(one.id for one in taken if one) == Counter(created)
    assert taken.count(None) == 40


async def test_the_first_lease_makes_it_in_progress_and_writes_event_2_and_no_later_one_does(
    store: Store, admin: redis.Redis
) -> None:
    response_id = await create(store)
    assert (await record_of(store, response_id)).status == "queued"
    assert await log_of(store, response_id) == numbered(1)
    for attempt in (1, 2, 3):
        assert (await lease(store)).attempt == attempt
        record = await record_of(store, response_id)
        assert (record.status, record.cursor) == ("in_progress", Cursor(1, 2))
        assert await log_of(store, response_id) == numbered(2)
        expire_lease(admin, store, response_id)


# ---- Fairness


async def test_an_owner_with_one_job_does_not_wait_behind_a_thousand_of_another(store: Store) -> None:
    await asyncio.gather(*(create(store, ALICE) for _ in range(1000)))
    single = await create(store, BOB)
    assert single in {(await lease(store)).id for _ in range(2)}


async def test_owners_take_turns(store: Store) -> None:
    for owner in (ALICE, ALICE, ALICE, BOB, BOB, CAROL):
        await create(store, owner)
    owners = [(await lease(store)).owner for _ in range(6)]
    assert owners == [ALICE, BOB, CAROL, ALICE, BOB, ALICE]


async def test_who_comes_back_waits_for_a_turn_behind_those_who_wait_already(store: Store) -> None:
    for owner in (ALICE, BOB, BOB):
        await create(store, owner)
    assert (await lease(store)).owner == ALICE
    await create(store, ALICE)
    assert [(await lease(store)).owner for _ in range(3)] == [BOB, ALICE, BOB]


async def test_who_queues_more_keeps_his_turn(store: Store) -> None:
    for owner in (ALICE, BOB, ALICE, BOB, ALICE):
        await create(store, owner)
    assert [(await lease(store)).owner for _ in range(5)] == [ALICE, BOB, ALICE, BOB, ALICE]


async def test_the_rotation_forgets_who_has_no_jobs_left(store: Store, admin: redis.Redis) -> None:
    shard = store.jobs.shards.of(ALICE)
    await create(store, ALICE)
    await cancel(store, await create(store, BOB))
    assert await try_lease(store) is not None
    assert await try_lease(store) is None
    assert admin.exists(shard.rotation, shard.queue(ALICE), shard.queue(BOB)) == 0


async def test_a_hundred_dead_jobs_in_the_queue_do_not_hide_the_one_behind_them(
    store: Store, admin: redis.Redis
) -> None:
    for _ in range(100):
        dead = await create(store)
        admin.delete(shard_of_id(store, dead).record(dead), shard_of_id(store, dead).log(dead))
    await a_millisecond(admin)
    alive = await create(store)
    assert (await lease(store)).id == alive


async def test_a_record_that_is_not_whole_is_passed_over(store: Store, admin: redis.Redis) -> None:
    broken = await create(store)
    shard = shard_of_id(store, broken)
    admin.hdel(shard.record(broken), "epoch")
    await a_millisecond(admin)
    whole = await create(store)
    assert (await lease(store)).id == whole
    assert await try_lease(store) is None


# ---- The order of one owner's jobs


async def test_what_may_wait_is_leased_after_what_may_not_and_each_class_in_order(
    store: Store, admin: redis.Redis
) -> None:
    hours = (7, 1, 0, 1, 7, 0)
    created = []
    for within in hours:
        created.append(await create(store, begin_within_s=within * 3600))
        await a_millisecond(admin)
    taken = [(await lease(store)).id for _ in hours]
    assert [created.index(one) for one in taken] == [2, 5, 1, 3, 0, 4]


async def test_a_job_that_has_waited_nearly_as_long_as_it_may_goes_before_younger_ones(
    store: Store, admin: redis.Redis
) -> None:
    waited = await create(store, begin_within_s=7 * 3600)
    made_older(admin, store, waited, hours=6.5)
    overdue = await create(store, begin_within_s=7 * 3600)
    made_older(admin, store, overdue, hours=7.5)
    young = [await create(store, begin_within_s=within * 3600) for within in (7, 1, 0)]
    taken = [(await lease(store)).id for _ in range(5)]
    assert taken == [overdue, young[2], waited, young[1], young[0]]


async def test_jobs_that_may_wait_do_not_change_whose_turn_it_is(store: Store) -> None:
    await create(store, ALICE, begin_within_s=7 * 3600)
    for _ in range(2):
        await create(store, BOB)
    assert [(await lease(store)).owner for _ in range(3)] == [ALICE, BOB, BOB]


async def test_a_released_job_that_may_wait_goes_on_waiting_from_when_it_was_created(
    store: Store, admin: redis.Redis
) -> None:
    waiting = await create(store, begin_within_s=3600)
    taken = await lease(store)
    await a_millisecond(admin)
    later = await create(store, begin_within_s=3600)
    urgent = await create(store)
    assert await store.jobs.release(taken) is Outcome.OK
    assert [(await lease(store)).id for _ in range(3)] == [urgent, waiting, later]


def made_older(admin: redis.Redis, store: Store, response_id: str, *, hours: float) -> None:
    """As if it had been created so many hours earlier."""
    shard, ms = shard_of_id(store, response_id), int(hours * 3600_000)
    admin.zincrby(shard.queue(ALICE), -ms, response_id)
    for field in ("queued_ms", "begin_by_ms"):
        admin.hincrby(shard.record(response_id), field, -ms)


# ---- Appending


async def test_an_append_writes_a_batch_and_its_fields_and_renews_the_lease(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    expire_lease(admin, store, taken.id)
    assert await append(store, taken, 3, 5, provider_id="resp_1", deployment="d2") == Step(Outcome.OK, 5)
    record = await record_of(store, taken.id)
    assert (record.cursor, record.provider_id, record.ran_on) == (Cursor(1, 5), "resp_1", "d2")
    assert await log_of(store, taken.id) == numbered(5)
    assert await try_lease(store, reclaim=True) is None


async def test_an_append_without_frames_sets_fields_and_moves_nothing(store: Store) -> None:
    taken = await run(store)
    (step,) = await store.jobs.append_many([Append(taken, 3, 2, b"", {"provider_id": "resp_1"})], LEASE_S)
    assert step == Step(Outcome.OK, 2)
    assert (await record_of(store, taken.id)).provider_id == "resp_1"
    assert await log_of(store, taken.id) == numbered(2)


@pytest.mark.parametrize("first", [3, 5, 7], ids=["too early", "overlapping", "too late"])
async def test_a_batch_that_does_not_follow_the_log_is_told_where_it_ends(store: Store, first: int) -> None:
    taken = await run(store)
    await append(store, taken, 3, 5)
    assert await append(store, taken, first, 8) == Step(Outcome.GAP, 5)
    assert (await finish(store, taken, 7)) == Step(Outcome.GAP, 5)
    assert await log_of(store, taken.id) == numbered(5)
    assert (await record_of(store, taken.id)).cursor == Cursor(1, 5)


async def test_after_a_gap_the_run_goes_on_from_where_the_log_ends(store: Store) -> None:
    taken = await run(store)
    step = await append(store, taken, 5, 6)
    assert step == Step(Outcome.GAP, 2)
    assert await append(store, taken, 3, 6) == Step(Outcome.OK, 6)
    assert await log_of(store, taken.id) == numbered(6)


async def test_many_appends_in_one_round_trip_are_answered_each_for_itself(store: Store) -> None:
    first, second, third, fourth = [await run(store) for _ in range(4)]
    await cancel(store, second.id)
    await store.responses.delete(await record_of(store, third.id), "t")
    batches = [(first, 3), (second, 3), (third, 3), (fourth, 4), (first, 4)]
    steps = await store.jobs.append_many(
        [Append(taken, number, number, frames(number, number), number=number) for taken, number in batches], LEASE_S
    )
    assert steps == [
        Step(Outcome.OK, 3),
        Step(Outcome.OVER, 3),
        Step(Outcome.GONE, -1),
        Step(Outcome.GAP, 2),
        Step(Outcome.OK, 4),
    ]
    assert await log_of(store, first.id) == numbered(4)


# ---- Finishing


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
async def test_finish_takes_the_last_batch_the_terminal_event_and_the_final_object(store: Store, status: str) -> None:
    taken = await run(store)
    batch = Append(taken, 3, 5, frames(3, 4) + terminal(5, status), {"provider_id": "resp_1"})
    assert await store.jobs.finish(Finish(batch, status, b"{final}")) == Step(Outcome.OK, 5)
    assert await log_of(store, taken.id) == numbered(5, status)
    reading = await store.responses.read(taken.id)
    assert reading is not None
    assert (reading.record.status, reading.record.terminal) == (status, True)
    assert (reading.record.cursor, reading.record.provider_id) == (Cursor(1, 5), "resp_1")
    assert (reading.snapshot, reading.base, reading.batches) == (b"{final}", b"", ())


@pytest.mark.parametrize("second", ["completed", "failed"])
async def test_the_first_terminal_status_wins(store: Store, second: str) -> None:
    taken = await run(store)
    await finish(store, taken, 3, "incomplete")
    assert await finish(store, taken, 4, second) == Step(Outcome.OVER, 3)
    assert await cancel(store, taken.id) is CancelOutcome.OVER
    assert (await record_of(store, taken.id)).status == "incomplete"
    assert await log_of(store, taken.id) == numbered(3, "incomplete")


async def test_of_a_finish_and_a_cancel_at_the_same_instant_one_wins(store: Store) -> None:
    for _ in range(20):
        taken = await run(store)
        step, cancelled = await asyncio.gather(finish(store, taken, 3), cancel(store, taken.id))
        status = (await record_of(store, taken.id)).status
        expected = {
            "completed": (Step(Outcome.OK, 3), CancelOutcome.OVER),
            "cancelled": (Step(Outcome.OVER, 3), CancelOutcome.CANCELLED),
        }
        assert (step, cancelled) == expected[status]
        assert await log_of(store, taken.id) == numbered(3, status)


# ---- Fencing


async def all_fenced(store: Store, taken: Lease) -> set[Outcome]:
    """What every step of a leased job comes to. Most of all it must not happen."""
    step = await append(store, taken, 3, 3, provider_id="too late")
    assert isinstance(step, Step)
    finished = await finish(store, taken, 3, "failed", provider_id="too late")
    return {step.outcome, finished.outcome, await renew(store, taken), await store.jobs.release(taken)}


async def test_when_a_job_was_reclaimed_its_former_worker_is_refused_everything(
    store: Store, admin: redis.Redis
) -> None:
    paused = await run(store)
    expire_lease(admin, store, paused.id)
    present = await lease(store)
    assert present.id == paused.id
    assert present.token != paused.token
    before = contents(admin)
    assert await all_fenced(store, paused) == {Outcome.STALE}
    assert contents(admin) == before
    assert await append(store, present, 3, 3) == Step(Outcome.OK, 3)


async def test_a_write_for_another_epoch_is_stale_whatever_its_token(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    before = contents(admin)
    for epoch in (0, 2):
        assert await append(store, replace(taken, epoch=epoch), 3, 3) == Step(Outcome.STALE, 2)
        assert await finish(store, replace(taken, epoch=epoch), 3) == Step(Outcome.STALE, 2)
    assert contents(admin) == before


async def test_after_a_rerun_began_the_worker_of_the_first_run_is_refused_everything(
    store: Store, admin: redis.Redis
) -> None:
    paused = await run(store)
    await append(store, paused, 3, 4)
    expire_lease(admin, store, paused.id)
    present = await lease(store)
    assert (paused.epoch, present.epoch) == (1, 2)
    assert await all_fenced(store, paused) == {Outcome.STALE}
    assert await log_of(store, present.id) == numbered(2)


async def test_when_a_response_was_cancelled_its_worker_is_refused_everything(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    await cancel(store, taken.id)
    before = contents(admin)
    assert await all_fenced(store, taken) == {Outcome.OVER}
    assert contents(admin) == before


async def test_when_a_response_has_ended_its_worker_is_refused_everything_else(
    store: Store, admin: redis.Redis
) -> None:
    taken = await run(store)
    await finish(store, taken, 3, "completed")
    before = contents(admin)
    assert await all_fenced(store, taken) == {Outcome.OVER}
    assert contents(admin) == before


async def test_when_a_response_was_deleted_nothing_brings_it_back(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    record = await record_of(store, taken.id)
    await store.responses.delete(record, "t")
    before = contents(admin)
    assert await all_fenced(store, taken) == {Outcome.GONE}
    assert await store.responses.cancel(record, b"", b"") is CancelOutcome.GONE
    assert contents(admin) == before
    assert not any("record" in key or "log" in key for key in before)


async def test_a_job_whose_record_was_removed_by_hand_is_forgotten_and_not_revived(
    store: Store, admin: redis.Redis
) -> None:
    taken = await run(store)
    shard = shard_of_id(store, taken.id)
    admin.delete(shard.record(taken.id), shard.log(taken.id))
    assert await all_fenced(store, taken) == {Outcome.GONE}
    expire_lease(admin, store, taken.id)
    assert await try_lease(store) is None
    assert admin.exists(shard.record(taken.id), shard.log(taken.id), shard.leases) == 0


# ---- Leases that run out


async def test_a_lease_that_ran_out_but_was_not_reclaimed_lives_again_when_renewed(
    store: Store, admin: redis.Redis
) -> None:
    taken = await run(store)
    expire_lease(admin, store, taken.id)
    assert await renew(store, taken) is Outcome.OK
    assert await try_lease(store) is None
    assert await append(store, taken, 3, 3) == Step(Outcome.OK, 3)


async def test_renewing_many_answers_each_in_order(store: Store, admin: redis.Redis) -> None:
    mine, stale, over, gone = [await run(store) for _ in range(4)]
    expire_lease(admin, store, stale.id)
    present = await lease(store)
    await finish(store, over, 3)
    await store.responses.delete(await record_of(store, gone.id), "t")
    outcomes = await store.jobs.renew([mine, stale, over, gone, present], LEASE_S)
    assert outcomes == [Outcome.OK, Outcome.STALE, Outcome.OVER, Outcome.GONE, Outcome.OK]
    assert await store.jobs.renew([], LEASE_S) == []


async def test_without_reclaim_a_lease_that_ran_out_is_left_alone(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    expire_lease(admin, store, taken.id)
    queued = await create(store)
    assert (await lease(store, reclaim=False)).id == queued
    assert await try_lease(store, reclaim=False) is None
    assert await renew(store, taken) is Outcome.OK


async def test_what_ran_out_is_reclaimed_before_anything_queued_is_begun(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    await create(store)
    expire_lease(admin, store, taken.id)
    assert (await lease(store)).id == taken.id


async def test_what_ran_out_is_reclaimed_once_however_many_ask_at_the_same_instant(
    store: Store, admin: redis.Redis
) -> None:
    dead = [await run(store) for _ in range(20)]
    for taken in dead:
        expire_lease(admin, store, taken.id)
    taken_again = await asyncio.gather(*(try_lease(store) for _ in range(40)))
    assert Counter(one.id for one in taken_again if one) == Counter(one.id for one in dead)


# ---- Reruns


async def rerun(store: Store, admin: redis.Redis, *, stream: bool, output: bool, **options: int) -> Lease:
    """What the second worker gets when the first one died, before or after output."""
    first = await run(store, stream=stream)
    if output:
        await append(store, first, 3, 4, provider_id="resp_1", base=b"{base}", deployment="d1")
    expire_lease(admin, store, first.id)
    return await lease(store, **options)


async def test_an_unstreamed_response_with_output_is_run_again_in_a_new_epoch(store: Store, admin: redis.Redis) -> None:
    second = await rerun(store, admin, stream=False, output=True)
    assert (second.verdict, second.epoch, second.attempt, second.last) == (Verdict.RUN, 2, 2, 2)
    reading = await store.responses.read(second.id)
    assert reading is not None
    assert (reading.record.status, reading.record.cursor) == ("in_progress", Cursor(2, 2))
    assert (reading.base, reading.record.provider_id, reading.record.ran_on) == (b"", "", "")
    assert [batch.cursor for batch in reading.batches] == [Cursor(2, 1), Cursor(2, 2)]
    assert await log_of(store, second.id) == numbered(2)
    assert await append(store, second, 3, 3) == Step(Outcome.OK, 3)


async def test_a_third_run_starts_a_third_epoch(store: Store, admin: redis.Redis) -> None:
    second = await rerun(store, admin, stream=False, output=True)
    await append(store, second, 3, 7)
    expire_lease(admin, store, second.id)
    third = await lease(store)
    assert (third.epoch, third.attempt, third.last) == (3, 3, 2)
    assert await log_of(store, third.id) == numbered(2)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_with_lifecycle_events_only_is_run_again_in_the_same_epoch(
    store: Store, admin: redis.Redis, stream: bool
) -> None:
    second = await rerun(store, admin, stream=stream, output=False)
    assert (second.verdict, second.epoch, second.attempt, second.last) == (Verdict.RUN, 1, 2, 2)
    assert await log_of(store, second.id) == numbered(2)


async def test_a_streamed_response_with_output_is_lost_and_keeps_its_log(store: Store, admin: redis.Redis) -> None:
    second = await rerun(store, admin, stream=True, output=True)
    assert (second.verdict, second.epoch, second.last) == (Verdict.LOST, 1, 4)
    assert await log_of(store, second.id) == numbered(4)
    assert await finish(store, second, 5, "failed") == Step(Outcome.OK, 5)
    assert await log_of(store, second.id) == numbered(5, "failed")


async def test_a_job_that_was_tried_too_often_is_lost_and_keeps_its_log(store: Store, admin: redis.Redis) -> None:
    second = await rerun(store, admin, stream=False, output=True, max_attempts=1)
    assert (second.verdict, second.epoch, second.attempt, second.last) == (Verdict.LOST, 1, 2, 4)
    assert await log_of(store, second.id) == numbered(4)


async def test_a_worker_that_dies_while_it_fails_a_lost_job_leaves_it_lost(store: Store, admin: redis.Redis) -> None:
    second = await rerun(store, admin, stream=False, output=True, max_attempts=1)
    expire_lease(admin, store, second.id)
    third = await lease(store, max_attempts=1)
    assert (third.verdict, third.epoch, third.last) == (Verdict.LOST, 1, 4)


async def test_a_job_that_waited_too_long_is_expired_also_in_its_first_lease(store: Store, admin: redis.Redis) -> None:
    response_id = await create(store)
    admin.hincrby(shard_of_id(store, response_id).record(response_id), "queued_ms", -10_001)
    taken = await lease(store, max_age_s=10)
    assert (taken.id, taken.verdict) == (response_id, Verdict.EXPIRED)
    assert await finish(store, taken, 3, "failed") == Step(Outcome.OK, 3)
    assert await log_of(store, response_id) == numbered(3, "failed")


async def test_a_pinned_deployment_survives_a_rerun(store: Store, admin: redis.Redis) -> None:
    first = await run(store, pinned="d1", previous="resp_0")
    await append(store, first, 3, 3, deployment="d1", provider_id="resp_1")
    expire_lease(admin, store, first.id)
    second = await lease(store)
    assert (second.epoch, second.pinned, second.previous) == (2, "d1", "resp_0")


# ---- Handing back


async def test_a_released_job_counts_as_no_attempt(store: Store) -> None:
    taken = await run(store)
    for _ in range(5):
        assert taken.attempt == 1
        assert await store.jobs.release(taken) is Outcome.OK
        taken = await lease(store, max_attempts=1)
    assert (taken.verdict, taken.epoch) == (Verdict.RUN, 1)


async def test_a_released_job_keeps_its_place_in_the_queue(store: Store, admin: redis.Redis) -> None:
    created = []
    for _ in range(3):
        created.append(await create(store))
        await a_millisecond(admin)
    taken = await lease(store)
    await store.jobs.release(taken)
    assert [(await lease(store)).id for _ in created] == created


async def test_a_released_job_stays_in_progress_and_its_former_worker_is_refused(
    store: Store, admin: redis.Redis
) -> None:
    taken = await run(store)
    await store.jobs.release(taken)
    assert admin.exists(shard_of_id(store, taken.id).leases) == 0
    assert (await record_of(store, taken.id)).status == "in_progress"
    assert await append(store, taken, 3, 3) == Step(Outcome.STALE, 2)
    assert await finish(store, taken, 3) == Step(Outcome.STALE, 2)
    assert await renew(store, taken) is Outcome.STALE


@pytest.mark.parametrize(
    ("stream", "verdict", "epoch", "last"), [(False, Verdict.RUN, 2, 2), (True, Verdict.LOST, 1, 3)]
)
async def test_a_job_released_after_output_is_run_again_only_if_nobody_streams_it(
    store: Store, stream: bool, verdict: Verdict, epoch: int, last: int
) -> None:
    taken = await run(store, stream=stream)
    await append(store, taken, 3, 3)
    await store.jobs.release(taken)
    second = await lease(store)
    assert (second.verdict, second.epoch, second.attempt, second.last) == (verdict, epoch, 1, last)


async def test_a_cancelled_job_that_was_released_is_not_leased_again(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    await store.jobs.release(taken)
    assert await cancel(store, taken.id) is CancelOutcome.CANCELLED
    assert admin.exists(shard_of_id(store, taken.id).queue(ALICE)) == 0
    assert await try_lease(store) is None


async def test_a_batch_that_comes_again_after_a_later_one_sets_no_field_back(store: Store) -> None:
    """A call that timed out may be run by the server when others have been since."""
    taken = await run(store)
    early = Append(taken, 3, 2, b"", {"upstream_last": "5", "provider_id": "first"}, number=1)
    later = Append(taken, 3, 2, b"", {"upstream_last": "6", "provider_id": "second"}, number=2)
    for batch in (early, later, early):
        (step,) = await store.jobs.append_many([batch], LEASE_S)
        assert step == Step(Outcome.OK, 2)
    assert (await record_of(store, taken.id)).provider_id == "second"


async def test_the_batches_of_another_lease_are_counted_anew(store: Store, admin: redis.Redis) -> None:
    first = await run(store)
    (step,) = await store.jobs.append_many([Append(first, 3, 2, b"", {"provider_id": "a"}, number=9)], LEASE_S)
    expire_lease(admin, store, first.id)
    second = await lease(store)
    (step,) = await store.jobs.append_many([Append(second, 3, 2, b"", {"provider_id": "b"}, number=1)], LEASE_S)
    assert step == Step(Outcome.OK, 2)
    assert (await record_of(store, first.id)).provider_id == "b"


async def test_what_may_not_be_reclaimed_any_more_is_told_and_left_alone(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    queued = await create(store)
    expire_lease(admin, store, taken.id)
    shard = shard_of_id(store, taken.id)

    async def ask(until_ms: int, token: str) -> Leased:
        limits = {"lease_s": LEASE_S, "max_attempts": 3, "max_age_s": 60.0}
        return await store.jobs.lease(shard, token, **limits, reclaim_until_ms=until_ms)  # type: ignore[arg-type]

    late = await ask(1, "t1")
    assert (late.lease, late.stale) == (None, True)
    assert await renew(store, taken) is Outcome.OK, "its worker lives, and says so now"
    expire_lease(admin, store, taken.id)
    fresh = await ask(late.at_ms + 60_000, "t2")
    assert fresh.lease is not None
    assert (fresh.lease.id, fresh.stale) == (taken.id, False)
    assert (await record_of(store, queued)).status == "queued", "what ran out comes first"


async def test_jobs_of_models_that_are_passed_over_are_left_to_others(store: Store) -> None:
    for _ in range(3):
        await create(store, model="unknown")
    known = await create(store, model="known")
    shard = shard_of_id(store, known)

    async def take(*passing_over: str) -> str | None:
        answer = await store.jobs.lease(
            shard, uuid4().hex, lease_s=LEASE_S, max_attempts=3, max_age_s=60.0, passing_over=passing_over
        )
        return answer.lease.model if answer.lease else None

    assert [await take("unknown", "other") for _ in range(2)] == ["known", None]
    assert [await take() for _ in range(4)] == ["unknown"] * 3 + [None]


async def test_upstream_cancels_that_were_broken_by_hand_hinder_no_other(store: Store, admin: redis.Redis) -> None:
    shard = store.jobs.shards[shard_of(ALICE, store.shards)]
    admin.set(shard.upstream_cancels, "x", px=60_000)
    assert await store.jobs.claim_cancels(shard, 10, 60.0) == []
    admin.set(shard.upstream_cancels, "x", px=60_000)
    taken = await run(store)
    await append(store, taken, 3, 3, survivable="1", deployment="d", provider_id="resp_1")
    await cancel(store, taken.id)
    admin.zadd(shard.upstream_cancels, dict.fromkeys((b"x", b"x d resp_2", b"9" * 5000 + b" d r", b"7 d \xff"), 0))
    [found] = await store.jobs.claim_cancels(shard, 10, 60.0)
    assert (found.deployment, found.provider_id) == ("d", "resp_1")
    await store.jobs.settle_cancel(shard, found)
    assert admin.zcard(shard.upstream_cancels) == 0


# ---- What is counted


async def test_jobs_are_counted_in_all_shards(store: Store) -> None:
    async def counted() -> tuple[int, int]:
        found = await store.jobs.count()
        return found.queued, found.leased

    assert await counted() == (0, 0)
    for owner in (ALICE, ALICE, BOB, CAROL):
        await create(store, owner)
    assert await counted() == (4, 0)
    taken = await lease(store)
    assert await counted() == (3, 1)
    await finish(store, taken, 3)
    assert await counted() == (3, 0)


async def test_what_is_late_is_counted(store: Store, admin: redis.Redis) -> None:
    """A job that may wait for a while is not late until then, and neither is a delivery that is put off."""
    assert await store.jobs.count() == Counts(0, 0)
    patient = await create(store, ALICE, begin_within_s=3600.0)
    assert (await store.jobs.count()).job_overdue_s == 0
    shard = Shards(store.shards).of(ALICE)
    [seconds, micros] = admin.time()
    now_ms = seconds * 1000 + micros // 1000
    admin.zadd(shard.queue(ALICE), {patient: now_ms - 60_000})
    admin.zadd(shard.endpoints_due, {"of the config": now_ms - 90_000, "put off": now_ms + 90_000})
    found = await store.jobs.count()
    assert (found.queued, found.endpoints_owed) == (1, 2)
    assert 60 <= found.job_overdue_s < 70
    assert 90 <= found.delivery_overdue_s < 100
    admin.delete(shard.endpoints_due)
    admin.set(shard.endpoints_due, "broken by hand")
    assert (await store.jobs.count()).delivery_overdue_s == 0
    admin.delete(shard.endpoints_due)


async def test_a_lease_tells_how_long_its_job_was_queued_and_whether_another_worker_lost_it(
    store: Store, admin: redis.Redis
) -> None:
    response_id = await create(store)
    await a_millisecond(admin)
    first = await _leased(store, "t1")
    assert first.waited_s is not None
    assert 0.001 <= first.waited_s < 30
    assert not first.reclaimed
    again = await _leased(store, "t1")
    assert (again.lease, again.waited_s, again.reclaimed) == (first.lease, None, False), "it is told once"
    expire_lease(admin, store, response_id)
    reclaimed = await _leased(store, "t2")
    assert (reclaimed.waited_s, reclaimed.reclaimed) == (None, True)
    assert reclaimed.lease is not None
    await store.jobs.release(reclaimed.lease)
    handed_back = await _leased(store, "t3")
    assert (handed_back.waited_s, handed_back.reclaimed) == (None, False)


async def _leased(store: Store, token: str) -> Leased:
    shard = store.jobs.shards[shard_of(ALICE, store.shards)]
    answer = await store.jobs.lease(
        shard, token, lease_s=LEASE_S, max_attempts=9, max_age_s=86400.0, reclaim_until_ms=2**53
    )
    assert answer.lease is not None
    return answer
