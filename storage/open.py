"""Opening the store: which server, is it fit, and what is kept in it once for all."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from storage.connection import Connections, answered
from storage.embedded import default_directory, embedded_server
from storage.errors import StoreError, StoreMisfit, StoreUnavailable
from storage.jobs import Jobs
from storage.keys import SETTINGS
from storage.notify import Ear, Listener
from storage.records import Durability
from storage.responses import Responses

log = logging.getLogger("pollux.store")

OLDEST = (7, 0)
OLDEST_FSYNC = (7, 2)
"""Since then there is WAITAOF. Valkey calls itself Redis 7.2."""
PATIENCE_S = 30.0
"""How long a starting process waits for a server that does not answer (yet)."""


@dataclass(frozen=True)
class Store:
    """One store, open."""

    name: str
    """For people: no password in it."""
    shards: int
    id_secret: bytes
    """32 random bytes, made once and the same for every process on this store."""
    responses: Responses
    jobs: Jobs
    connections: Connections

    def new_listener(self, ear: Ear) -> Listener:
        return Listener(self.connections, self.shards, ear)

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless the server answers."""
        async with answered():
            await self.connections.commands.ping()


@asynccontextmanager
async def open_store(url: str, shards: int = 1, durability: Durability = Durability.NONE) -> AsyncIterator[Store]:
    """Open `embedded://[directory]`, `redis://…`, `rediss://…` or `unix://…`.

    Waits up to `PATIENCE_S` for a server that is still starting.

    Raises:
        StoreMisfit: this server can't be used, and why
        StoreUnavailable: there is none

    """
    with _readable():
        parts = urlsplit(url)
    if parts.scheme == "embedded":
        place = unquote(parts.netloc + parts.path)
        directory = _absolute(place) if place else default_directory()
        async with embedded_server(directory) as server, _connected(f"unix://{server.socket_path}") as links:
            yield await _store(f"embedded://{directory}", links, shards, durability)
    elif parts.scheme in ("redis", "rediss", "unix", "sentinel", "sentinels"):
        async with _connected(url) as links:
            yield await _store(_without_password(url), links, shards, durability)
    else:
        raise StoreMisfit(
            f"the store {parts.scheme or url!r} is not known: use embedded://[directory], redis://host:port/db, "
            "rediss://…, unix:///path/to/socket or sentinel://host:port,host:port/service"
        )


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connections]:
    with _readable():
        connections = Connections(url)
        connections.new_listening_connection()  # made, not connected: it looks at every option
    try:
        yield connections
    finally:
        await connections.aclose()


async def _store(name: str, connections: Connections, shards: int, durability: Durability) -> Store:
    await _reach(name, connections)
    await _inspect(connections, durability)
    secret = await _settle(connections, shards)
    return Store(
        name=name,
        shards=shards,
        id_secret=secret,
        responses=Responses(connections, shards, durability),
        jobs=Jobs(connections, shards, durability),
        connections=connections,
    )


async def _reach(name: str, connections: Connections) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        try:
            async with answered():
                await connections.commands.ping()
            return
        except StoreUnavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise StoreUnavailable(f"no store answers at {name}: {error}") from error
            log.warning("waiting for the store at %s: %s", name, error)
            await asyncio.sleep(0.5)


async def _inspect(connections: Connections, durability: Durability) -> None:
    async with answered():
        about = await connections.commands.info("server", "cluster", "memory", "persistence")
    version = str(about.get("redis_version", "0.0"))
    release = tuple(int(part) for part in version.split(".")[:2])
    if release < OLDEST:
        raise StoreMisfit(f"the store is Redis {version}: Pollux needs Redis 7.0 or newer, or any Valkey")
    if durability is Durability.FSYNC and (release < OLDEST_FSYNC or not about.get("aof_enabled")):
        raise StoreMisfit("store_sync: fsync needs Redis 7.2 or newer, or Valkey, with appendonly yes")
    if about.get("cluster_enabled"):
        raise StoreMisfit("the store is a Redis Cluster, which this version does not serve yet")
    if about.get("maxmemory") and about.get("maxmemory_policy") != "noeviction":
        log.warning(
            "the store evicts keys when it is full (maxmemory-policy %s): running jobs can be lost; "
            "run CONFIG SET maxmemory-policy noeviction",
            about.get("maxmemory_policy"),
        )
    await _check_keyspace_notifications(connections)


async def _check_keyspace_notifications(connections: Connections) -> None:
    """They only make a wait on a record that is deleted by hand end sooner: nothing depends on them."""
    try:
        async with answered():
            answer: Any = await connections.commands.config_get("notify-keyspace-events")
    except StoreError:
        return  # CONFIG is often forbidden; then nobody can follow our advice either
    flags = set(str(answer.get("notify-keyspace-events", "")))
    if "K" not in flags or not ("A" in flags or {"g", "x", "e"} <= flags):
        log.warning(
            "keyspace notifications are off: waits on records that expire or are evicted end only with the "
            "next sweep; to switch them on, run CONFIG SET notify-keyspace-events Kgxe"
        )


async def _settle(connections: Connections, shards: int) -> bytes:
    """Agree with all other processes on the number of shards and on the secret."""
    client = connections.commands
    async with answered():
        await client.hsetnx(SETTINGS, "shards", shards)
        await client.hsetnx(SETTINGS, "id_secret", secrets.token_hex(32))
        settings: Any = await client.hmget(SETTINGS, "shards", "id_secret")
    kept, secret = settings
    if int(kept) != shards:
        raise StoreMisfit(
            f"the store was made with shards: {int(kept)}, the config says {shards}: keys would be looked for in "
            "the wrong place. Set it back, or use an empty store."
        )
    return bytes.fromhex(secret.decode())


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError):
        # Not their messages: they quote what they stumble over, which may be half of a password.
        raise StoreMisfit(
            "the store's URL can't be read. Are its port and db numbers, its options known to redis-py, and the "
            "special characters of its password percent-encoded?"
        ) from None


def _absolute(place: str) -> Path:
    return Path(place).expanduser().absolute()


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    credentials, at, place = parts.netloc.rpartition("@")
    user = credentials.partition(":")[0]
    # The query may hold a password too (unix:// URLs do).
    return parts._replace(netloc=(f"{user}:***@" if at else "") + place, query="").geturl()
