"""The ways to a store that somebody else runs: encrypted, with least rights, at an address that moves, or cut."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import plain_url
from tests.support.replica import (
    CACHED,
    Replica,
    all_complete,
    create,
    free_port,
    make_config,
    running_replica,
    with_output,
)
from tests.support.servers import configured, documented_rights, follows, running_redis
from tests.support.sse import read_stream
from tests.support.upstreams import runs_of
from tests.support.waiting import wait_until

BINARY = shutil.which("redis-server") or ""
OPENSSL = shutil.which("openssl") or ""


async def everything_works(pollux: Replica) -> None:
    """Each step that the store takes part in, once at least."""
    body = {"model": CACHED, "input": "whole [[words=20]]", "background": True}
    async with pollux.http() as http:
        streamed = await read_stream(await http.post("responses", json={**body, "stream": True}))
        assert streamed[-1]["type"] == "response.completed"
        keyed = {"Idempotency-Key": "once", "Prefer": "wait=20"}
        first, again = [await (await http.post("responses", json=body, headers=keyed)).json() for _ in range(2)]
        assert (first["status"], first["id"]) == ("completed", again["id"])
        running = await create(pollux, "long [[words=2000]] [[delay_ms=50]]")
        await with_output(pollux, running)
        cancelled = await (await http.post(f"responses/{running}/cancel")).json()
        assert cancelled["status"] == "cancelled"
        items = await (await http.get(f"responses/{first['id']}/input_items")).json()
        assert len(items["data"]) == 1
        listed = await (await http.get("responses", params={"limit": "2"})).json()
        assert [one["id"] for one in listed["data"]] == [running, first["id"]]
        more = await (await http.get("responses", params={"after": first["id"]})).json()
        assert len(more["data"]) == 1
        for one in listed["data"]:
            assert (await (await http.delete(f"responses/{one['id']}")).json())["deleted"] is True
        assert (await http.get(f"{pollux.url}/readyz")).status == 200


# ---- Rights


@pytest.mark.whole_server
@pytest.mark.parametrize("store_sync", ["none", "fsync"])
async def test_the_rights_that_the_runbook_names_are_enough(
    simulator: str, store_url: str, admin: redis.Redis, store_sync: str
) -> None:
    rights = [">hunter2", *documented_rights(), *(["+waitaof"] if store_sync == "fsync" else []), *_right_to(store_url)]
    if store_sync == "fsync" and (admin.config_get("appendonly")["appendonly"], _has_waitaof(admin)) != ("yes", True):
        pytest.skip("this server has no WAITAOF, or no appendonly file")
    admin.execute_command("ACL", "SETUSER", "careful", "reset", "on", *rights)  # type: ignore[no-untyped-call]
    admin.acl_log_reset()
    try:
        url = plain_url(store_url).replace("://", "://careful:hunter2@", 1)
        config = make_config(simulator, lease_s=1, store_sync=store_sync)
        config["model_list"][0]["model_info"] = {"upstream_background": True}
        async with running_replica(config, url) as pollux:
            await everything_works(pollux)
            # A cancel of the provider's own run is told, and struck off.
            await wait_until(lambda: not list(admin.scan_iter("pollux:*:upstream_cancels")), what="all is told")
        denied = [
            (str(entry["object"]), entry["reason"]) for entry in admin.acl_log() if entry["username"] == "careful"
        ]
        # redis-py introduces itself, and goes on where it may not.
        assert [entry for entry in denied if not entry[0].startswith(("client|", "hello"))] == []
    finally:
        admin.acl_deluser("careful")


def _right_to(store_url: str) -> list[str]:
    """What the runbook adds for a database other than 0."""
    return ["+select"] if re.search(r"(/|db=)[1-9]\d*$", plain_url(store_url)) else []


def _has_waitaof(admin: redis.Redis) -> bool:
    about: Any = admin.execute_command("COMMAND", "INFO", "WAITAOF")  # type: ignore[no-untyped-call]
    return bool(about and (about[0] if isinstance(about, list) else about))


@pytest.mark.skipif(not BINARY, reason="there is no redis-server here")
async def test_the_oldest_server_knows_the_rights_that_the_runbook_names(simulator: str) -> None:
    with running_redis(BINARY) as url, redis.Redis.from_url(url) as admin:
        rights = [">hunter2", *documented_rights()]
        admin.execute_command("ACL", "SETUSER", "careful", "reset", "on", *rights)
        async with running_replica(make_config(simulator), url.replace("://", "://careful:hunter2@", 1)) as pollux:
            await everything_works(pollux)


def test_the_rights_that_the_runbook_names_are_not_all() -> None:
    rights = documented_rights()
    assert "~pollux:*" in rights
    assert not {"allkeys", "~*", "allcommands", "+@all", "allchannels", "&*"} & set(rights)


# ---- Encryption


@pytest.mark.skipif(not (BINARY and OPENSSL), reason="there is no redis-server here, or no openssl")
async def test_an_encrypted_connection_is_checked_and_served(simulator: str, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    port = free_port()
    files = {name: str(tmp_path / f"{name}.pem") for name in ("cert", "key")}
    with running_redis(
        BINARY,
        tls_port=str(port),
        tls_cert_file=files["cert"],
        tls_key_file=files["key"],
        tls_ca_cert_file=files["cert"],
        tls_auth_clients="no",
    ):
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={files['cert']}"
        async with running_replica(make_config(simulator), url) as pollux:
            await everything_works(pollux)


def make_certificate(folder: Path) -> None:
    """For localhost, signed by itself."""
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )


# ---- An address that moves, and connections that break


class Address:
    """As a name in the DNS: new connections go where it points now, old ones stay where they are."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._links: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Its port."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in self._links:
                writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._links |= {writer, there_writer}
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.skipif(not BINARY, reason="there is no redis-server here")
@pytest.mark.parametrize("store_sync", ["none", "replica"])
async def test_a_primary_that_became_a_replica_is_left_for_the_one_that_is_primary_now(
    simulator: str, store_sync: str
) -> None:
    """READONLY on connections that nobody closes: new ones, by the same name, lead to the new primary."""
    first, second = free_port(), free_port()
    third = free_port()
    with (
        running_redis(BINARY, port=str(first), bind="127.0.0.1"),
        running_redis(BINARY, port=str(second), bind="127.0.0.1", replicaof=f"127.0.0.1 {first}"),
        running_redis(BINARY, port=str(third), bind="127.0.0.1", replicaof=f"127.0.0.1 {first}"),
        redis.Redis(port=first) as old,
        redis.Redis(port=second) as new,
        redis.Redis(port=third) as other,
    ):
        await wait_until(lambda: follows(new) and follows(other), timeout_s=20, what="the replicas have it all")
        address = Address(first)
        async with address.listening() as port:
            config = make_config(simulator, store_sync=store_sync)
            async with running_replica(config, f"redis://127.0.0.1:{port}/0") as pollux, pollux.http() as http:
                ids = [await create(pollux, f"job {n} [[words=60]] [[delay_ms=50]]") for n in range(10)]
                for one in ids:
                    await with_output(pollux, one)
                await wait_until(lambda: all(new.exists(f"pollux:{{0}}:log:{one}") for one in ids), what="it has them")
                new.replicaof("NO", "ONE")
                for server in (old, other):
                    server.replicaof("127.0.0.1", str(second))
                address.target = second
                await all_complete(http, ids)
                after = await create(pollux, "after [[words=20]]")
                await all_complete(http, [after])
                assert new.exists(f"pollux:{{0}}:record:{after}")


@pytest.mark.whole_server
async def test_a_storm_of_broken_connections_costs_no_run_and_no_wait(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        ids = [await create(pollux, f"job {n} [[words=80]] [[delay_ms=40]]", stream=n % 2 == 0) for n in range(50)]
        waiting = asyncio.create_task(all_complete(http, ids))
        for kill in range(30):
            admin.client_kill_filter(_type="pubsub" if kill % 3 == 0 else "normal", skipme=True)
            await asyncio.sleep(0.1)  # the storm itself
        await waiting
    assert await runs_of(simulator) == 50, "none ran twice"


@pytest.mark.whole_server
async def test_a_server_without_room_for_our_connections_is_waited_for(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        ids = [await create(pollux, f"job {n} [[words=60]] [[delay_ms=50]]") for n in range(20)]
        with _no_room(admin):
            answer = await http.get(f"responses/{ids[0]}")
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)
            assert (await http.get(f"{pollux.url}/readyz")).status == 503
        await all_complete(http, ids)
    assert await runs_of(simulator) == 20


@contextmanager
def _no_room(admin: redis.Redis) -> Iterator[None]:
    """A server that takes no connection more than the one that says so."""
    with configured(admin, maxclients=1):
        admin.client_kill_filter(_type="normal", skipme=True)
        admin.client_kill_filter(_type="pubsub", skipme=True)
        yield
