"""The listener: what is heard, that nothing is missed from `subscribe` on, and that it always comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from storage import Cursor, Store, StoreUnavailable, notify, open_store, steps_and_end
from tests.support.ears import Notes, listening
from tests.support.servers import configured
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
    shard_of_id,
)
from tests.support.waiting import wait_until

# On a cluster what is published arrives some time later, also at who has subscribed since: what is heard there is
# tested in `test_keys.py` and in `tests/faults/test_cluster.py`.
pytestmark = [pytest.mark.one_server, pytest.mark.whole_server]


def subscribers(admin: redis.Redis, store: Store, response_id: str) -> int:
    """How many connections the server knows to listen for this response."""
    ((_, count),) = admin.pubsub_numsub(shard_of_id(store, response_id).over(response_id))
    assert isinstance(count, int)
    return count


async def reconnected(admin: redis.Redis, notes: Notes) -> None:
    """The listener is back, and has subscribed anew."""
    await wait_until(lambda: notes.wakes > 0, what="the wake channel is acknowledged")


# ---- Subscribing


async def test_when_subscribe_returns_the_server_has_taken_it(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        for _ in range(20):
            response_id = await create(store)
            await listener.subscribe(steps_and_end(response_id))
            assert subscribers(admin, store, response_id) == 1
            assert notes.moves[-1] == (response_id, None, True), "the acknowledgement says: look for yourself"


async def test_nothing_is_missed_from_subscribe_on(store: Store) -> None:
    async with listening(store) as (listener, notes):
        taken = [await run(store) for _ in range(30)]

        async def subscribe_then_move(number: int) -> None:
            await listener.subscribe(steps_and_end(taken[number].id))
            await append(store, taken[number], 3, 3)

        await asyncio.gather(*map(subscribe_then_move, range(30)))
        for one in taken:
            await notes.hear((one.id, Cursor(1, 3), False))


async def test_two_subscribers_of_one_response_share_a_subscription(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        taken = await run(store)
        await asyncio.gather(*(listener.subscribe(steps_and_end(taken.id)) for _ in range(5)))
        await listener.subscribe(steps_and_end(taken.id))
        assert subscribers(admin, store, taken.id) == 1
        assert notes.moves == [(taken.id, None, True)]
        await append(store, taken, 3, 3)
        await notes.hear((taken.id, Cursor(1, 3), False))
        assert len(notes.moves) == 2


async def test_after_unsubscribe_nothing_is_heard(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        taken, other = await run(store), await run(store)
        await listener.subscribe(steps_and_end(taken.id))
        await listener.unsubscribe(steps_and_end(taken.id))
        await listener.subscribe(steps_and_end(other.id))
        assert subscribers(admin, store, taken.id) == 0
        notes.moves.clear()
        await append(store, taken, 3, 3)
        await append(store, other, 3, 3)
        await notes.hear((other.id, Cursor(1, 3), False))
        assert notes.moves == [(other.id, Cursor(1, 3), False)]


async def test_one_may_unsubscribe_and_subscribe_again_at_once(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        taken = await run(store)
        await listener.subscribe(steps_and_end(taken.id))
        await asyncio.gather(listener.unsubscribe(steps_and_end(taken.id)), listener.subscribe(steps_and_end(taken.id)))
        await wait_until(lambda: subscribers(admin, store, taken.id) == 1)
        await append(store, taken, 3, 3)
        await notes.hear((taken.id, Cursor(1, 3), False))


async def test_to_unsubscribe_from_what_nobody_subscribed_to_is_no_error(store: Store) -> None:
    async with listening(store) as (listener, _):
        await listener.unsubscribe(steps_and_end("litellm_poll_nobody"))


async def test_without_a_connection_subscribe_does_not_wait_and_it_is_heard_later(store: Store) -> None:
    notes = Notes()
    listener = store.new_listener(notes)
    taken = await run(store)
    async with asyncio.timeout(0.5):
        await listener.subscribe(steps_and_end(taken.id))
    listening_task = asyncio.create_task(listener.run())
    try:
        await notes.hear((taken.id, None, True))
    finally:
        listening_task.cancel()


# ---- What is heard


async def test_every_step_of_a_response_is_heard_with_its_place(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        response_id = await create(store)
        await listener.subscribe(steps_and_end(response_id))
        notes.moves.clear()
        first = await lease(store)
        await append(store, first, 3, 5)
        expire_lease(admin, store, response_id)
        second = await lease(store)
        await append(store, second, 3, 3)
        await finish(store, second, 4)
        await notes.hear((response_id, Cursor(2, 4), True))
        assert notes.moves == [
            (response_id, Cursor(1, 2), False),
            (response_id, Cursor(1, 5), False),
            # A rerun removes the log, never the record: nobody takes it for deleted.
            (response_id, Cursor(2, 2), False),
            (response_id, Cursor(2, 3), False),
            (response_id, Cursor(2, 4), True),
        ]


async def test_a_cancel_is_heard_as_the_end(store: Store) -> None:
    async with listening(store) as (listener, notes):
        taken = await run(store)
        await listener.subscribe(steps_and_end(taken.id))
        await cancel(store, taken.id)
        await notes.hear((taken.id, Cursor(1, 3), True))
        await wait_until(lambda: notes.revocations == [taken.id])


async def test_a_delete_is_heard_as_something_to_look_for(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        taken = await run(store)
        await listener.subscribe(steps_and_end(taken.id))
        notes.moves.clear()
        with configured(admin, notify_keyspace_events="Kgxe"):
            await store.responses.delete(await record_of(store, taken.id), "t")
        # Once from the script, and once from the keyspace.
        await wait_until(lambda: len(notes.moves) == 2)
        assert set(notes.moves) == {(taken.id, None, True)}
        assert notes.revocations == [taken.id]


async def test_a_repeated_append_is_not_heard_again(store: Store) -> None:
    async with listening(store) as (listener, notes):
        taken = await run(store)
        await listener.subscribe(steps_and_end(taken.id))
        notes.moves.clear()
        for last in (3, 3, 4):
            await append(store, taken, last, last)
        await notes.hear((taken.id, Cursor(1, 4), False))
        assert notes.moves == [(taken.id, Cursor(1, 3), False), (taken.id, Cursor(1, 4), False)]


async def test_idle_workers_are_woken_by_a_new_job_and_by_one_that_was_handed_back(store: Store) -> None:
    async with listening(store) as (_, notes):
        taken = await run(store)
        await wait_until(lambda: notes.wakes == 1)
        await store.jobs.release(taken)
        await wait_until(lambda: notes.wakes == 2)


async def test_every_process_hears_the_same(store: Store) -> None:
    async with listening(store) as (one, first), listening(store) as (other, second):
        taken = await run(store)
        await one.subscribe(steps_and_end(taken.id))
        await other.subscribe(steps_and_end(taken.id))
        await finish(store, taken, 3)
        await first.hear((taken.id, Cursor(1, 3), True))
        await second.hear((taken.id, Cursor(1, 3), True))


# ---- The keyspace


async def test_a_record_deleted_by_hand_is_heard(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        response_id = await create(store)
        await listener.subscribe(steps_and_end(response_id))
        notes.moves.clear()
        shard = shard_of_id(store, response_id)
        with configured(admin, notify_keyspace_events="Kgxe"):
            admin.delete(shard.record(response_id))
            await notes.hear((response_id, None, True))
        admin.delete(shard.log(response_id), shard.queue(ALICE))


async def test_a_record_that_expires_is_heard(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        taken = await run(store)
        await finish(store, taken, 3)
        await listener.subscribe(steps_and_end(taken.id))
        notes.moves.clear()
        with configured(admin, notify_keyspace_events="Kgxe"):
            admin.pexpire(shard_of_id(store, taken.id).record(taken.id), 1)
            await notes.hear((taken.id, None, True))
        assert notes.moves == [(taken.id, None, True)]


async def test_a_server_that_tells_of_every_write_wakes_nobody_in_vain(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        taken = await run(store)
        await listener.subscribe(steps_and_end(taken.id))
        notes.moves.clear()
        with configured(admin, notify_keyspace_events="KEA"):
            await append(store, taken, 3, 3, provider_id="resp_1")
            await finish(store, taken, 4)
            await notes.hear((taken.id, Cursor(1, 4), True))
        assert notes.moves == [(taken.id, Cursor(1, 3), False), (taken.id, Cursor(1, 4), True)]


# ---- Connections that break


async def test_when_its_connection_is_killed_the_listener_comes_back_and_everyone_looks(
    store: Store, admin: redis.Redis
) -> None:
    async with listening(store) as (listener, notes):
        taken = [await run(store) for _ in range(20)]
        for one in taken:
            await listener.subscribe(steps_and_end(one.id))
        await wait_until(lambda: notes.wakes == 20)
        for _ in range(3):
            notes.moves.clear()
            assert admin.client_kill_filter(_type="pubsub") == 1
            await wait_until(lambda: {move[0] for move in notes.moves} == {one.id for one in taken})
        assert set(notes.moves) == {(one.id, None, True) for one in taken}
        await append(store, taken[0], 3, 3)
        await notes.hear((taken[0].id, Cursor(1, 3), False))


async def test_what_moved_while_the_connection_was_down_is_looked_for(store: Store, admin: redis.Redis) -> None:
    async with listening(store) as (listener, notes):
        taken, unwanted = await run(store), await run(store)
        await listener.subscribe(steps_and_end(taken.id))
        await listener.subscribe(steps_and_end(unwanted.id))
        notes.moves.clear()
        admin.client_kill_filter(_type="pubsub")
        await listener.unsubscribe(steps_and_end(unwanted.id))
        await finish(store, taken, 3)
        await notes.hear((taken.id, None, True))
        assert {move[0] for move in notes.moves} == {taken.id}


async def test_who_waits_for_an_acknowledgement_when_the_connection_breaks_is_let_go(
    store: Store, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "ACKNOWLEDGED_WITHIN_S", 60.0)
    async with listening(store) as (listener, notes):
        ids = [await create(store) for _ in range(5)]
        admin.client_pause(500, all=True)  # milliseconds
        subscribing = [asyncio.create_task(listener.subscribe(steps_and_end(response_id))) for response_id in ids]
        await wait_until(lambda: len(listener._awaited) == 2 * len(ids))
        assert listener._connection is not None
        await listener._connection.disconnect(nowait=True)
        async with asyncio.timeout(5):
            await asyncio.gather(*subscribing)
        await wait_until(lambda: {move[0] for move in notes.moves} == set(ids))


async def test_a_server_that_does_not_acknowledge_in_time_is_not_waited_for(
    store: Store, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "ACKNOWLEDGED_WITHIN_S", 0.02)
    async with listening(store) as (listener, notes):
        response_id = await create(store)
        admin.client_pause(300, all=True)  # milliseconds
        await listener.subscribe(steps_and_end(response_id))
        assert notes.moves == []
        await notes.hear((response_id, None, True))


async def test_a_connection_that_has_fallen_silent_is_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(store) as (listener, notes):
        monkeypatch.setattr(notify, "SILENCE_S", 0.05)
        response_id = await create(store)
        await listener.subscribe(steps_and_end(response_id))
        await wait_until(lambda: notes.moves.count((response_id, None, True)) > 2)


async def test_a_quiet_connection_is_kept_alive_by_pings(
    store: Store, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "PING_EVERY_S", 0.02)
    monkeypatch.setattr(notify, "SILENCE_S", 1.0)

    def connections() -> list[dict[str, Any]]:
        answer: Any = admin.client_list(_type="pubsub")
        return list(answer)

    async with listening(store):
        (before,) = connections()
        await wait_until(lambda: connections()[0]["cmd"] == "ping")
        assert connections()[0]["id"] == before["id"]


async def test_when_the_server_dies_the_listener_and_every_subscription_come_back(
    store_url: str, admin: redis.Redis
) -> None:
    if not store_url.startswith("embedded:"):
        pytest.skip("only the embedded server is restarted by itself")
    async with open_store(store_url) as store, listening(store) as (listener, notes):
        taken = await run(store, BOB)
        await listener.subscribe(steps_and_end(taken.id))
        admin.config_set("appendfsync", "always")  # what is written from now on is on the disk
        await append(store, taken, 3, 3)
        await notes.hear((taken.id, Cursor(1, 3), False))
        notes.moves.clear()
        notes.wakes = 0
        os.kill(admin.info("server")["process_id"], signal.SIGKILL)
        await notes.hear((taken.id, None, True))
        await wait_until(lambda: notes.wakes == 1)

        async def is_read_again() -> bool:
            with suppress(StoreUnavailable):  # for a moment, the server may still be loading its data
                return (await record_of(store, taken.id)).cursor == Cursor(1, 3)
            return False

        await wait_until(is_read_again)
        await finish(store, taken, 4)
        await notes.hear((taken.id, Cursor(1, 4), True))


async def test_a_listener_that_may_not_hear_a_channel_asks_ever_more_seldom_and_says_so_in_a_few_lines(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    longest_pauses: list[float] = []
    enough = asyncio.Event()

    async def refused() -> None:
        raise NoPermissionError("No permissions to access a channel")

    def pause(_least_s: float, most_s: float) -> float:
        longest_pauses.append(most_s)
        if len(longest_pauses) == 100:
            enough.set()
        return 0.0

    listener = store.new_listener(Notes())
    monkeypatch.setattr(listener, "_listen", refused)
    monkeypatch.setattr("storage.notify.random.uniform", pause)
    running = asyncio.create_task(listener.run())
    await asyncio.wait_for(enough.wait(), 5)
    running.cancel()
    await asyncio.wait([running])
    assert longest_pauses[99] == notify.LONGEST_PAUSE_OF_REFUSED_S
    said = [record for record in caplog.records if "listener lost its connection" in record.getMessage()]
    assert 1 <= len(said) <= 8
