"""Connections: bounded, patient, one of their own for renewals; and what the errors of redis-py mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
from redis._parsers.base import BaseParser
from redis.exceptions import ClusterError, DataError, MaxConnectionsError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storage import Outcome, Record, Store, StoreError, StoreFull, StoreMisfit, StoreUnavailable, connection, open_store
from storage.connection import POOL_SIZE, Connections, Single, translated
from storage.patience import Patience
from tests.support.stored import create, lease, renew, run, shard_of_id
from tests.support.waiting import wait_until

pytestmark = pytest.mark.whole_server

# ---- Errors

REPLIES = [
    ("LOADING Redis is loading the dataset in memory", StoreUnavailable),
    ("BUSY Redis is busy running a script.", StoreUnavailable),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", StoreUnavailable),
    ("CLUSTERDOWN The cluster is down", StoreUnavailable),
    ("TRYAGAIN Multiple keys request during rehashing of slot", StoreUnavailable),
    ("MOVED 3999 127.0.0.1:6381", StoreUnavailable),
    ("ASK 3999 127.0.0.1:6381", StoreUnavailable),
    ("READONLY You can't write against a read only replica.", StoreUnavailable),
    ("NOREPLICAS Not enough good replicas to write.", StoreUnavailable),
    ("UNBLOCKED force unblock from blocking operation, instance state changed", StoreUnavailable),
    ("MISCONF Errors writing to the AOF file: No space left on device", StoreUnavailable),
    ("ERR max number of clients reached", StoreUnavailable),
    ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
    ("ERR OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'", StoreFull),
    ("NOAUTH Authentication required.", StoreMisfit),
    ("WRONGPASS invalid username-password pair or user is disabled.", StoreMisfit),
    ("NOPERM this user has no permissions to run the 'eval' command", StoreMisfit),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", StoreError),
    ("ERR unknown command 'EVALSHA'", StoreError),
]


@pytest.mark.parametrize(("reply", "meaning"), REPLIES, ids=[reply.split(" ", 1)[0] for reply, _ in REPLIES])
def test_a_reply_of_the_server_is_told_as_what_it_means_for_us(reply: str, meaning: type[StoreError]) -> None:
    with pytest.raises(StoreError) as caught, translated():
        raise BaseParser.parse_error(reply)  # type: ignore[no-untyped-call]
    assert type(caught.value) is meaning
    assert str(caught.value)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (RedisConnectionError("Connection closed by server."), StoreUnavailable),
        (MaxConnectionsError(), StoreUnavailable),
        (RedisTimeoutError(), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
        (ConnectionResetError(104, "Connection reset by peer"), StoreUnavailable),
        (FileNotFoundError(2, "No such file or directory"), StoreUnavailable),
        (DataError("Invalid input of type: 'NoneType'"), StoreError),
        (RedisError("something new"), StoreError),
        (ClusterError("TTL exhausted."), StoreUnavailable),
        (RedisClusterException("Redis Cluster cannot be connected."), StoreUnavailable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_the_client_is_told_as_what_it_means_for_us(error: Exception, meaning: type[StoreError]) -> None:
    with pytest.raises(StoreError) as caught, translated():
        raise error
    assert type(caught.value) is meaning
    assert str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("ours"), StoreFull("already")])
def test_what_is_not_of_the_store_passes_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, translated():
        raise error
    assert caught.value is error


async def test_a_reply_of_the_wrong_kind_is_an_error_of_the_package_from_every_way_to_call(
    store: Store, admin: redis.Redis
) -> None:
    wrong = shard_of_id(store, "litellm_poll_wrong").record("litellm_poll_wrong")
    admin.set(wrong, "no hash", px=60_000)
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.responses.find("litellm_poll_wrong")
    # Of many, one must not hide the others.
    assert await store.responses.find_many(["litellm_poll_wrong"]) == [None]
    admin.delete(wrong)


# ---- The pool


@asynccontextmanager
async def exhausted(store: Store, admin: redis.Redis) -> AsyncIterator[None]:
    """Every connection of the pool waits for something that comes with the end of the block."""

    async def blocked() -> None:
        with translated():
            await store.connections.commands.blpop("door", timeout=4)

    waiting = [asyncio.create_task(blocked()) for _ in range(POOL_SIZE)]
    await wait_until(lambda: admin.info("clients")["blocked_clients"] == POOL_SIZE)
    try:
        yield
    finally:
        admin.lpush("door", *range(POOL_SIZE))
        await asyncio.gather(*waiting)


@pytest.mark.one_server
async def test_when_all_connections_are_taken_a_caller_waits_for_its_turn(store: Store, admin: redis.Redis) -> None:
    async with exhausted(store, admin):
        late = [asyncio.create_task(store.ping()) for _ in range(3 * POOL_SIZE)]
        for _ in range(10):  # time enough for every one of them, had it a connection
            await store.connections.renewals.ping()
        assert not any(task.done() for task in late)
    await asyncio.gather(*late)


@pytest.mark.one_server
async def test_a_crowd_takes_no_more_connections_than_the_pool_has(store: Store, admin: redis.Redis) -> None:
    before = admin.info("clients")["connected_clients"]
    await asyncio.gather(*(store.ping() for _ in range(20 * POOL_SIZE)))
    assert admin.info("clients")["connected_clients"] <= before + POOL_SIZE


@pytest.mark.one_server
async def test_a_lease_is_renewed_while_all_other_connections_are_taken(store: Store, admin: redis.Redis) -> None:
    taken = await run(store)
    async with exhausted(store, admin):
        async with asyncio.timeout(1):
            assert await renew(store, taken) is Outcome.OK


@pytest.mark.one_server
async def test_who_waits_too_long_for_a_connection_is_told_that_the_store_is_away(
    store_url: str, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "POOL_TIMEOUT_S", 0.05)
    async with open_store(store_url) as store, exhausted(store, admin):
        with pytest.raises(StoreUnavailable):
            await store.ping()
        with pytest.raises(StoreUnavailable):
            await store.responses.find("litellm_poll_nobody")


async def test_a_command_whose_connection_was_killed_is_sent_again(store: Store, admin: redis.Redis) -> None:
    await store.ping()
    assert admin.client_kill_filter(_type="normal", skipme=True)
    await store.ping()


# ---- Answers that come too late, or that nobody waits for any more


@pytest.mark.one_server
async def test_a_server_that_answers_too_late_is_away_and_no_answer_goes_to_another_question(
    store: Store, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await create(store) for _ in range(20)]
    taken = await lease(store)
    for client in (store.connections.commands, store.connections.renewals):
        assert isinstance(client, Single)
        monkeypatch.setattr(client, "patience", Patience(0.1))
    admin.client_pause(500, all=True)  # milliseconds; then the server answers what it was asked
    questions = [*map(store.responses.find, ids), store.ping(), store.responses.find_many(ids), renew(store, taken)]
    answers = await asyncio.gather(*questions, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    monkeypatch.undo()
    await all_answered(store, ids)


async def test_when_callers_give_up_no_answer_goes_to_another_question(store: Store, admin: redis.Redis) -> None:
    ids = [await create(store) for _ in range(50)]
    for turns in range(8):
        asking = [asyncio.create_task(store.responses.find(response_id)) for response_id in ids]
        pipelined = asyncio.create_task(store.responses.find_many(ids))
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in (*asking[::2], pipelined):
            task.cancel()
        answers = await asyncio.gather(*asking, pipelined, return_exceptions=True)
        for response_id, answer in zip(ids, answers, strict=False):
            assert isinstance(answer, asyncio.CancelledError) or (
                isinstance(answer, Record) and answer.id == response_id
            )
        await all_answered(store, ids)


async def all_answered(store: Store, ids: list[str]) -> None:
    """Whatever happened before, every question gets its own answer."""
    for _ in range(3):
        records = await asyncio.gather(*map(store.responses.find, ids))
        requests = await asyncio.gather(*map(store.responses.read_request, ids))
        assert [record.id for record in records if record] == ids
        assert set(requests) == {b'{"input": "hello"}'}
        assert [record.id for record in await store.responses.find_many(ids) if record] == ids


# ---- URLs


@pytest.mark.parametrize(
    ("url", "db"),
    [("redis://h", 0), ("redis://h/3", 3), ("rediss://h:1/2", 2), ("unix:///s", 0), ("unix:///s?db=5", 5)],
)
async def test_the_database_of_a_url_is_the_one_whose_keyspace_is_listened_to(url: str, db: int) -> None:
    connections = Connections(url)
    assert connections.db == db
    await connections.aclose()


# ---- Who is told


class Notes:
    """An observer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, StoreError | None]] = []

    def answered(self, command: str, seconds: float, error: StoreError | None) -> None:
        self.told.append((command, seconds, error))


async def test_an_observer_is_told_of_each_exchange_and_what_came_of_it(store: Store, admin: redis.Redis) -> None:
    notes = Notes()
    store.observe(notes)
    taken = await run(store)
    assert await renew(store, taken) is Outcome.OK
    await store.ping()
    assert [command for command, _, _ in notes.told] == ["create", "lease", "renew", "command"]
    assert all(0 < seconds < 30 and error is None for _, seconds, error in notes.told)
    assert store.exchanges == 0
    admin.set(shard_of_id(store, taken.id).rotation, "broken by hand")
    with pytest.raises(StoreError) as raised:
        await store.jobs.count()
    (failed,) = [error for command, _, error in notes.told if command == "count_jobs" and error]
    assert failed is raised.value
