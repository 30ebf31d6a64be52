"""The stores of the chaos run, and what is done to them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from storage.keys import Shard, shard_of
from tests.conftest import plain_url
from tests.support.cluster import ClusterServers, Node, running_cluster
from tests.support.keys import Admin

REPLACED_WITHIN_S = 20.0
"""A primary that is gone: its replica notices, is elected, and all the others know."""


class AnyStore(ABC):
    """A store as its operator sees it. Its calls block, so they run in a thread, but for `befall`."""

    url: str
    shards: int = 1
    kinds: Mapping[str, int]
    """What may happen to it, and how often compared to the rest."""

    @abstractmethod
    @contextmanager
    def client(self) -> Iterator[Admin]:
        """Raises `redis.RedisError` while it is away."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until all is well."""

    @abstractmethod
    async def befall(self, kind: str, lasts_s: float) -> None:
        """Do one of `kinds`, and return when that is over."""

    def record(self, response_id: str) -> dict[str, str]:
        """What it has of a response."""
        with self.client() as client:
            found: Any = client.hgetall(Shard(shard_of(response_id, self.shards)).record(response_id))
            # Some values are compressed.
            return {name.decode(): value.decode(errors="replace") for name, value in found.items()}


class OneServer(AnyStore):
    """One server, which comes back with all that it had."""

    kinds = {"store kill -9": 2, "store pause": 3}  # noqa: RUF012

    def __init__(self, url: str, revive: Callable[[], None] | None = None) -> None:
        self.url = url
        self._revive = revive
        self.pid = 0

    @contextmanager
    def client(self) -> Iterator[Admin]:
        with redis.Redis.from_url(plain_url(self.url), retry=Retry(NoBackoff(), 0), socket_timeout=5) as client:
            yield client

    def settle(self) -> None:
        """Wait until it answers, and let an acknowledgement be worth a write to the disk: a kill may lose no more."""
        deadline = time.monotonic() + 30
        while True:
            with suppress(redis.RedisError), self.client() as client:
                client.config_set("appendfsync", "always")
                self.pid = int(client.info("server")["process_id"])
                return
            assert time.monotonic() < deadline, "the store does not come back"
            time.sleep(0.05)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def befall(self, kind: str, lasts_s: float) -> None:
        if kind == "store pause":
            os.kill(self.pid, signal.SIGSTOP)
            await asyncio.sleep(lasts_s)
            os.kill(self.pid, signal.SIGCONT)
            return
        self.kill()
        await asyncio.to_thread(self._come_back)

    def _come_back(self) -> None:
        """Start it again, unless (the embedded one) the replicas do."""
        if self._revive is not None:
            self._revive()
        self.settle()


class ClusterStore(AnyStore):
    """Three primaries, each with a replica, of which one at a time is in trouble.

    Replication is asynchronous, so that a failover may lose the tail which no replica has yet. That is in the README's
    table and is not to be proved here. Before a primary is killed or stopped, it is therefore told to write no more
    until its replica has everything.
    """

    kinds = {  # noqa: RUF012
        "store node kill -9": 2,
        "store node pause": 2,
        "store node handover": 2,
        "store slot moves": 5,
        "store slot moves at once": 2,
    }

    def __init__(self, servers: ClusterServers, shards: int, chance: random.Random) -> None:
        self._servers = servers
        self.url = servers.url
        self.shards = shards
        self._chance = chance

    @contextmanager
    def client(self) -> Iterator[Admin]:
        try:
            with self._servers.admin() as admin:
                yield admin
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error

    def settle(self) -> None:
        self._servers.settle()

    async def befall(self, kind: str, lasts_s: float) -> None:
        if "slot" in kind:
            shard, other = Shard(self._chance.randrange(self.shards)), self._chance.randrange(2)
            await asyncio.to_thread(self._move, shard, other, None if "at once" in kind else lasts_s)
        else:
            primary = self._chance.randrange(self._servers.primaries)
            await asyncio.to_thread(self._replace, kind, primary, lasts_s)
        await asyncio.to_thread(self.settle)

    def _move(self, shard: Shard, other: int, lasts_s: float | None) -> None:
        """Move the slot of a shard to one of the two other primaries while all go on using it.

        In some time, a few keys after the others; or (None) as the servers do it.
        """
        source = self._servers.owner_of(shard.leases)
        target = [node for node in self._servers.nodes if node.is_primary and node is not source][other]
        if lasts_s is None:
            self._servers.move_slot_at_once(shard.leases, source, target)
        else:
            self._servers.move_slot(shard.leases, source, target, pause_s=lasts_s / 50)

    def _replace(self, kind: str, number: int, lasts_s: float) -> None:
        primary = [node for node in self._servers.nodes if node.is_primary][number]
        replica = self._servers.replica_of(primary)
        if kind == "store node handover":
            replica.cluster("FAILOVER")
            self._until_it_leads(replica)
            return
        primary.client.client_pause(60_000, all=False)
        self._servers.replicate(primary)
        if kind == "store node kill -9":
            primary.kill()
            time.sleep(lasts_s)
            self._until_it_leads(replica)
            primary.start()
            return
        primary.signal(signal.SIGSTOP)
        time.sleep(lasts_s)
        primary.signal(signal.SIGCONT)
        # If it was away for long, it still takes itself for a primary: what it wrote now would be lost.
        self.settle()
        primary.client.client_unpause()

    def _until_it_leads(self, replica: Node) -> None:
        deadline = time.monotonic() + REPLACED_WITHIN_S
        while not replica.is_primary:
            assert time.monotonic() < deadline, "no replica takes over"
            time.sleep(0.05)


@asynccontextmanager
async def running_store(kind: str, folder: Path, shards: int, seed: int) -> AsyncIterator[AnyStore]:
    """`embedded`, which lives with the replicas, `cluster`, or a `redis-server` of its own."""
    if kind == "embedded":
        store = OneServer(f"embedded://{folder / 'store'}")
        try:
            yield store
        finally:
            with suppress(ProcessLookupError):
                if store.pid and _is_ours(store.pid, folder):
                    store.kill()
    elif kind == "cluster":
        with running_cluster(3, replicas=1) as servers:
            yield ClusterStore(servers, shards, random.Random(seed))
    else:
        with _own_server(kind, folder) as server:
            yield server


@contextmanager
def _own_server(kind: str, folder: Path) -> Iterator[OneServer]:
    folder.mkdir(exist_ok=True)
    servers: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        if servers:
            servers[-1].wait()
        options = {
            "port": "0",
            "unixsocket": f"{folder}/redis.sock",
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "notify-keyspace-events": "Kgxe",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (folder / "redis.log").open("ab") as log:
            servers.append(subprocess.Popen([kind, *words], stdin=subprocess.DEVNULL, stdout=log))

    start()
    try:
        yield OneServer(f"unix://{folder}/redis.sock", start)
    finally:
        servers[-1].kill()
        servers[-1].wait()


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether the server that we know still has this number: numbers are used again."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    return False
