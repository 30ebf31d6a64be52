"""A Redis with a replica and a sentinel: its primary dies, and Pollux goes on with the new one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.customers import Customers
from tests.support.replica import create, ended, free_port, make_config, running_replica, with_output
from tests.support.servers import follows, running_redis
from tests.support.subscribers import Patient, faults_of, lives_in
from tests.support.waiting import wait_until

BINARY = shutil.which("redis-server") or ""
pytestmark = pytest.mark.skipif(not BINARY, reason="there is no redis-server here")


@contextmanager
def running_sentinel(primary_port: int) -> Iterator[int]:
    """One sentinel that alone decides, and soon; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pollux-sentinel-") as directory:
        config = Path(directory) / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor poll 127.0.0.1 {primary_port} 1\n"
            "sentinel down-after-milliseconds poll 400\nsentinel failover-timeout poll 2000\n"
        )
        command = [BINARY, str(config), "--sentinel"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
            try:
                yield port
            finally:
                server.kill()


@dataclass(frozen=True)
class Pair:
    """A primary and its replica, watched by a sentinel."""

    url: str
    primary: redis.Redis
    replica: redis.Redis

    def kill_primary(self) -> None:
        about: Any = self.primary.info("server")
        os.kill(about["process_id"], signal.SIGKILL)

    async def is_promoted(self) -> None:
        """Wait until the replica is the primary."""
        await wait_until(lambda: _is_primary(self.replica), timeout_s=15, what="the replica was promoted")


@asynccontextmanager
async def running_pair() -> AsyncIterator[Pair]:
    """Both, once the replica has everything and the sentinel knows it."""
    first, second = free_port(), free_port()
    with (
        running_redis(BINARY, port=str(first), bind="127.0.0.1"),
        running_redis(BINARY, port=str(second), bind="127.0.0.1", replicaof=f"127.0.0.1 {first}"),
        running_sentinel(first) as sentinel,
        redis.Redis(port=sentinel) as watchman,
        redis.Redis(port=first) as primary,
        redis.Redis(port=second) as replica,
    ):
        await wait_until(lambda: follows(replica), timeout_s=20, what="the replica has it all")
        await wait_until(lambda: _is_known(watchman), timeout_s=20, what="the sentinel knows the replica")
        yield Pair(f"sentinel://127.0.0.1:{sentinel}/poll", primary, replica)


async def test_jobs_waits_and_creates_go_on_with_the_new_primary(simulator: str) -> None:
    async with (
        running_pair() as pair,
        running_replica(make_config(simulator), pair.url) as pollux,
        pollux.http() as http,
    ):
        ids = [await create(pollux, f"job {n} [[words=80]] [[delay_ms=50]]", stream=True) for n in range(10)]
        for one in ids:
            await with_output(pollux, one)
        await wait_until(lambda: pair.replica.exists(f"pollux:{{0}}:log:{ids[-1]}"), what="the replica has them too")
        pair.kill_primary()
        await pair.is_promoted()
        for number, one in enumerate(ids):
            response = await ended(http, one)
            assert response["status"] == "completed"
            assert f"job {number} " in response["output"][0]["content"][0]["text"]
        after = await create(pollux, "after")
        assert (await (await http.get(f"responses/{after}?wait=20")).json())["status"] == "completed"
        assert pair.replica.exists(f"pollux:{{0}}:record:{after}")


async def test_subscribers_are_told_by_the_new_primary_what_the_old_one_did_not(simulator: str) -> None:
    life = ["response.queued", "response.in_progress", "response.completed"]
    async with (
        running_pair() as pair,
        running_replica(make_config(simulator), pair.url) as pollux,
        Patient(lambda: [pollux.url]) as stays,
        Patient(lambda: [pollux.url], hangs_up_after=7) as comes_and_goes,
    ):
        customers = Customers([pollux.url])
        await customers.create([f"job {n} [[words=60]] [[delay_ms=50]]" for n in range(10)])
        for reader in (stays, comes_and_goes):
            await reader.has_been_told(lambda events: len(events) == 20)
        # What a failover may lose is the tail that no replica has yet; here it shall be no transition.
        assert pair.primary.wait(1, 5000) == 1
        pair.kill_primary()
        await pair.is_promoted()
        await customers.create(["after"])
        for reader in (stays, comes_and_goes):
            await reader.has_been_told(customers.have_ends)
            assert faults_of(reader.events) == []
            assert lives_in(reader.events) == dict.fromkeys(customers.made, life)


def _is_known(watchman: redis.Redis) -> bool:
    """Whether the sentinel could promote the replica: it has talked with it."""
    try:
        found: Any = watchman.execute_command("SENTINEL REPLICAS", "poll")  # type: ignore[no-untyped-call]
    except redis.ConnectionError:
        return False
    return any(replica[b"flags"] == b"slave" and replica[b"runid"] for replica in found)


def _is_primary(server: redis.Redis) -> bool:
    about: Any = server.info("replication")
    return bool(about["role"] == "master")
