"""Opening a store: fit or misfit, patient, and one secret for all."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from storage import CreateOutcome, Durability, Store, StoreMisfit, StoreUnavailable, open_store, scripts
from storage import open as opening
from storage.connection import Connections
from storage.inspection import HARMLESS
from tests.conftest import plain_url
from tests.support.ears import Notes
from tests.support.replica import free_port
from tests.support.servers import configured, documented_rights, follows, running_redis
from tests.support.stored import create, finish, lease, log_of, new_response, numbered
from tests.support.waiting import wait_until

pytestmark = pytest.mark.whole_server


async def outcome_of(url: str, shards: int = 1) -> Store:
    async with open_store(url, shards) as store:
        await store.ping()
        return store


# ---- Fit


async def test_everybody_on_a_store_has_the_same_secret(store_url: str) -> None:
    stores = await asyncio.gather(*(outcome_of(store_url) for _ in range(5)))
    (secret,) = {store.id_secret for store in stores}
    assert len(secret) == 32


async def test_two_stores_have_two_secrets(store_url: str, admin: redis.Redis) -> None:
    first = await outcome_of(store_url)
    admin.flushdb()
    assert (await outcome_of(store_url)).id_secret != first.id_secret


async def test_what_is_stored_is_there_for_whoever_opens_the_store_next(store_url: str) -> None:
    async with open_store(store_url) as store:
        response_id = await create(store)
    async with open_store(store_url) as store:
        await finish(store, await lease(store), 3)
    async with open_store(store_url) as store:
        assert await log_of(store, response_id) == numbered(3, "completed")


async def test_the_name_of_an_embedded_store_is_its_directory(tmp_path: Path) -> None:
    place = tmp_path / "a store"
    async with open_store(f"embedded://{tmp_path}/a%20store") as store:
        assert store.name == f"embedded://{place}"
        assert (place / "server.lock").exists()


# ---- Misfit


@pytest.mark.parametrize("shards", [1, 8, 32])
async def test_a_store_that_was_made_with_other_shards_is_refused(store_url: str, shards: int) -> None:
    await outcome_of(store_url, 16)
    with pytest.raises(StoreMisfit, match=f"shards: 16, the config says {shards}"):
        await outcome_of(store_url, shards)
    await outcome_of(store_url, 16)


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14: Pollux needs Redis 7.0 or newer"),
        ({}, "Redis 0.0"),
        ({"redis_version": "7.2.4", "cluster_enabled": 1}, "name it as cluster://"),
    ],
)
async def test_a_server_that_can_not_serve_us_is_refused_and_left_as_it_was(
    store_url: str, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], message: str
) -> None:
    async def servers(_: Connections) -> list[dict[str, Any]]:
        return [about]

    monkeypatch.setattr("storage.inspection._servers", servers)
    with pytest.raises(StoreMisfit, match=message):
        await outcome_of(store_url)
    assert admin.dbsize() == 0


@pytest.mark.parametrize("url", ["http://localhost", "memory://", "localhost:6379", "redis", "", "REDIS2://h"])
async def test_an_unknown_kind_of_store_is_refused_with_those_that_are_known(url: str) -> None:
    with pytest.raises(StoreMisfit, match=r"embedded://\[directory\], redis://"):
        await outcome_of(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:port",
        "redis://:hunter2/6@localhost",
        "redis://localhost?db=hunter2",
        "redis://localhost?hunter2=1",
        "redis://[::1",
        "unix:///nowhere?socket_timeout=hunter2",
    ],
)
async def test_a_url_that_can_not_be_read_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(StoreMisfit, match="URL can't be read") as caught:
        await outcome_of(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


# ---- Credentials


@contextmanager
def user(admin: redis.Redis, name: str, password: str, *commands: str) -> Iterator[None]:
    admin.acl_setuser(
        name,
        enabled=True,
        reset=True,
        passwords=[f"+{password}"],
        keys=["*"],
        channels=["*"],
        commands=commands,
    )
    try:
        yield
    finally:
        admin.acl_deluser(name)


def signed_in(store_url: str, credentials: str = "", query: str = "") -> str:
    parts = urlsplit(plain_url(store_url))
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{credentials}@{place}" if credentials else place, query=query).geturl()


@pytest.mark.one_server
async def test_a_password_is_used_and_never_shown(
    store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with user(admin, "pollux", "hunter2", "+@all"):
        store = await outcome_of(signed_in(store_url, "pollux:hunter2"))
    assert "pollux:***@" in store.name
    assert "hunter2" not in f"{store.name} {caplog.text}"


@pytest.mark.one_server
async def test_a_password_in_the_query_is_not_shown_either(store_url: str, admin: redis.Redis) -> None:
    with user(admin, "pollux", "hunter2", "+@all"):
        store = await outcome_of(signed_in(store_url, query="username=pollux&password=hunter2"))
    assert "hunter2" not in store.name


async def test_a_wrong_password_is_refused_at_once(store_url: str, admin: redis.Redis) -> None:
    refused = pytest.raises(StoreMisfit, match="refuses these credentials")
    with user(admin, "pollux", "hunter2", "+@all"), refused as caught:
        await outcome_of(signed_in(store_url, "pollux:hunter3"))
    assert "hunter" not in str(caught.value)


async def test_a_user_who_may_not_do_what_we_do_is_refused_at_once(store_url: str, admin: redis.Redis) -> None:
    refused = pytest.raises(StoreMisfit, match="refuses these credentials")
    with user(admin, "pollux", "hunter2", "+ping", "+info", "+client", "+hello"), refused:
        await outcome_of(signed_in(store_url, "pollux:hunter2"))


@pytest.mark.one_server
async def test_a_user_who_may_not_read_the_configuration_is_served(store_url: str, admin: redis.Redis) -> None:
    with user(admin, "pollux", "hunter2", "+@all", "-config"):
        await outcome_of(signed_in(store_url, "pollux:hunter2"))


# ---- Patience


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://user:hunter2@127.0.0.1:1/0"])
async def test_a_store_that_is_not_there_is_waited_for_as_long_as_was_said(url: str) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable, match="no store answers at") as caught:
            async with open_store(url, patience_s=0.1):
                pass
    assert "hunter2" not in str(caught.value)


async def test_that_a_store_is_waited_for_is_said_ever_more_seldom(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(opening, "FIRST_SILENCE_S", 0.05)

    async def nobody() -> tuple[int, bytes]:
        raise StoreUnavailable("nobody answers")

    with pytest.raises(StoreUnavailable, match="no store answers at there: nobody answers"):
        await opening._waited_for("there", nobody, patience_s=1)
    said = [record.created for record in caplog.records if "waiting for the store" in record.message]
    gaps = [after - before for before, after in pairwise(said)]
    assert gaps
    assert all(gap > 0.045 * 2**number for number, gap in enumerate(gaps))
    assert caplog.messages[0] == "waiting for the store at there, for 0 s so far: nobody answers"


async def test_a_store_that_is_full_can_be_opened_if_it_was_before(store_url: str, admin: redis.Redis) -> None:
    before = await outcome_of(store_url)
    with configured(admin, maxmemory_policy="noeviction", maxmemory=1):
        assert (await outcome_of(store_url)).id_secret == before.id_secret


async def test_a_store_that_starts_late_is_waited_for(store_url: str, caplog: pytest.LogCaptureFixture) -> None:
    server = urlsplit(plain_url(store_url))
    if server.scheme != "unix":
        pytest.skip("the given server has no socket file that could be moved")
    with tempfile.TemporaryDirectory(prefix="pollux-") as directory:
        late = Path(directory) / "redis.sock"
        opening_task = asyncio.create_task(outcome_of(f"unix://{late}"))
        await wait_until(lambda: "waiting for the store" in caplog.text)
        late.symlink_to(server.path)
        assert (await opening_task).shards == 1


# ---- Warnings


async def test_a_server_that_evicts_is_warned_about(
    store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with configured(admin, maxmemory="4gb", maxmemory_policy="allkeys-lru"):
        await outcome_of(store_url)
    assert "CONFIG SET maxmemory-policy noeviction" in caplog.text


@pytest.mark.one_server
@pytest.mark.parametrize("flags", ["", "KA", "KEA", "Kgxe", "Kg$xe", "Egxe", "Kgx"])
async def test_keyspace_notifications_that_are_off_are_warned_about_with_the_remedy(
    store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture, flags: str
) -> None:
    with configured(admin, notify_keyspace_events=flags):
        await outcome_of(store_url)
    enough = flags in ("KA", "KEA", "Kgxe", "Kg$xe")
    assert ("CONFIG SET notify-keyspace-events Kgxe" in caplog.text) is not enough


async def test_a_server_that_is_as_it_should_be_is_not_talked_about(
    store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with configured(admin, maxmemory_policy="noeviction", notify_keyspace_events="Kgxe"):
        await outcome_of(store_url)
    assert [record.message for record in caplog.records if record.name.startswith("pollux")] == []


# ---- Durability


async def test_fsync_is_waited_for_where_the_server_has_it_and_refused_where_not(
    store_url: str, admin: redis.Redis
) -> None:
    about = admin.info()
    assert isinstance(about, dict)
    able = tuple(map(int, about["redis_version"].split(".")[:2])) >= (7, 2) and about["aof_enabled"]
    if not able:
        with pytest.raises(StoreMisfit, match="store_sync: fsync needs"):
            async with open_store(store_url, durability=Durability.FSYNC):
                pass
        return
    admin.script_flush()
    async with open_store(store_url, durability=Durability.FSYNC) as store:
        response_id = await create(store)
        await finish(store, await lease(store), 3)
        assert await log_of(store, response_id) == numbered(3, "completed")


async def test_without_a_replica_that_has_it_a_create_is_not_acknowledged(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scripts._WAITS, Durability.REPLICA, ("WAIT", 1, 50))
    async with open_store(store_url, durability=Durability.REPLICA) as store:
        new = new_response()
        with pytest.raises(StoreUnavailable, match="did not reach its replica"):
            await store.responses.create(new)
        record = await store.responses.find(new.id)
        assert record is not None, "it was written, and whoever called may take it back"
        assert await store.responses.delete(record, "t")


async def test_with_a_replica_a_create_waits_for_it() -> None:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("there is no redis-server here")
    port = str(free_port())
    with (
        running_redis(binary, port=port) as primary,
        running_redis(binary, replicaof=f"127.0.0.1 {port}") as replica,
        redis.Redis.from_url(replica) as follower,
    ):
        await wait_until(lambda: follows(follower), what="it follows")
        async with open_store(primary, durability=Durability.REPLICA) as store:
            new = new_response()
            assert (await store.responses.create(new)).outcome is CreateOutcome.CREATED
            assert follower.exists(f"pollux:{{0}}:record:{new.id}")


@pytest.mark.one_server
async def test_without_the_right_to_a_channel_the_listener_says_so_a_few_times_and_not_for_ever(
    store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with user(admin, "deaf", "hunter2", "+@all"):
        admin.execute_command("ACL", "SETUSER", "deaf", "resetchannels")  # type: ignore[no-untyped-call]
        async with open_store(signed_in(store_url, "deaf:hunter2")) as store:
            listener = store.new_listener(Notes())
            task = asyncio.create_task(listener.run())
            await asyncio.sleep(2)  # as often as it likes, in this time
            task.cancel()
            await asyncio.wait([task])
    warnings = [record for record in caplog.records if "listener lost its connection" in record.getMessage()]
    assert 1 <= len(warnings) <= 4


TWO_WORDS = ("CONFIG", "XINFO")


async def test_a_checkup_tries_all_rights_that_are_documented_and_leaves_nothing(
    store_url: str, admin: redis.Redis
) -> None:
    async with open_store(store_url) as store:
        before = set(admin.scan_iter())
        found = await store.check_up()
    assert set(admin.scan_iter()) == before
    assert found.refused == ()
    assert found.server.split()[0] in ("Valkey", "Redis")
    assert abs(found.skew_s) < 1
    tried = {"+" + "|".join(map(str, command[: 1 + (command[0] in TWO_WORDS)])).lower() for command in HARMLESS}
    by_connecting = {"auth", "hello", "ping", "client|setinfo", "client|setname", "subscribe", "unsubscribe"}
    documented = {word for word in documented_rights() if word.startswith("+")}
    assert documented - {f"+{word}" for word in by_connecting} == tried
