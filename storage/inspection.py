"""Looking at a server: whether it can be used, and what somebody should know of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError

from storage.cluster import Cluster
from storage.connection import Connections, answered, ask, exchange, translated
from storage.errors import StoreError, StoreMisfit, StoreUnavailable
from storage.keys import CHECKUP
from storage.records import Durability

log = logging.getLogger("pollux.store")

OLDEST = (7, 0)
OLDEST_FSYNC = (7, 2)
"""The first version with WAITAOF. Valkey reports its `redis_version` as 7.2."""

HARMLESS: tuple[tuple[str | int, ...], ...] = (
    ("INFO", "server"),
    ("CONFIG", "GET", "maxmemory-policy"),
    ("TIME",),
    ("WAIT", 0, 0),
    ("PUBLISH", CHECKUP, ""),
    ("EVAL", "return 1", 1, CHECKUP),
    ("EVALSHA", "0" * 40, 1, CHECKUP),
    ("SET", CHECKUP, "", "PX", 1000),
    ("GET", CHECKUP),
    ("EXISTS", CHECKUP),
    ("TYPE", CHECKUP),
    ("DEL", CHECKUP),
    ("PEXPIRE", CHECKUP, 1000),
    ("HSET", CHECKUP, "f", "1"),
    ("HGET", CHECKUP, "f"),
    ("HMGET", CHECKUP, "f"),
    ("HEXISTS", CHECKUP, "f"),
    ("HGETALL", CHECKUP),
    ("HINCRBY", CHECKUP, "f", 1),
    ("PEXPIRE", CHECKUP, 1000),
    ("HDEL", CHECKUP, "f"),
    ("LPUSH", CHECKUP, ""),
    ("LRANGE", CHECKUP, 0, 0),
    ("LREM", CHECKUP, 0, "x"),
    ("LTRIM", CHECKUP, 1, 0),
    ("XADD", CHECKUP, "NOMKSTREAM", "*", "f", ""),
    ("XRANGE", CHECKUP, "-", "+", "COUNT", 1),
    ("XINFO", "STREAM", CHECKUP),
    ("XTRIM", CHECKUP, "MAXLEN", 0),
    ("ZADD", CHECKUP, "XX", 0, ""),
    ("ZRANGE", CHECKUP, 0, 0),
    ("ZRANGEBYSCORE", CHECKUP, 0, 0),
    ("ZREVRANGE", CHECKUP, 0, 0),
    ("ZREVRANK", CHECKUP, ""),
    ("ZCARD", CHECKUP),
    ("ZCOUNT", CHECKUP, 0, 0),
    ("ZREM", CHECKUP, ""),
    ("DEL", CHECKUP),
)
"""A call of each command that Pollux needs, which leaves nothing behind. What connecting itself needs is left out."""


@dataclass(frozen=True)
class Checkup:
    """A server as it was found."""

    server: str
    """Its make and version."""
    answer_s: float
    skew_s: float
    """How far its clock is ahead of ours."""
    keeps: str
    """How it keeps its data over a restart."""
    refused: tuple[str, ...]
    """What the user of the URL may not do, and Pollux needs."""
    remarks: tuple[str, ...]


async def inspect(connections: Connections, durability: Durability) -> list[str]:
    """Check that this server can be used, and return what somebody should know of it.

    Raises:
        StoreMisfit: it can't be used
        StoreUnavailable

    """
    remarks = []
    for about in await _servers(connections):
        _check(about, durability, clustered=connections.clustered)
        if about.get("maxmemory") and about.get("maxmemory_policy") != "noeviction":
            remarks.append(
                f"the store evicts keys when it is full (maxmemory-policy {about.get('maxmemory_policy')}): running "
                "jobs can be lost; run CONFIG SET maxmemory-policy noeviction"
            )
    # In a cluster a node notifies of its own keys only, and we listen to one node.
    if not connections.clustered and await _lacks_notifications(connections):
        remarks.append(
            "keyspace notifications are off: waits on records that expire or are evicted end only with the next "
            "sweep; to switch them on, run CONFIG SET notify-keyspace-events Kgxe"
        )
    return remarks


async def check_up(connections: Connections, durability: Durability) -> Checkup:
    """All that can be found out about a server from here.

    Raises:
        StoreMisfit, StoreUnavailable

    """
    client = connections.commands
    about, *_ = await _servers(connections)
    began, here = time.perf_counter(), time.time()
    async with answered(client):
        seconds, microseconds = await client.time()
    answer_s = time.perf_counter() - began
    return Checkup(
        server=_name(about),
        answer_s=answer_s,
        skew_s=int(seconds) + int(microseconds) / 1e6 - here - answer_s / 2,
        keeps=_keeps(about),
        refused=(*await _refused(connections, durability), *await _refused_channels(connections)),
        remarks=tuple(await inspect(connections, durability)),
    )


async def _servers(connections: Connections) -> list[dict[str, Any]]:
    """The INFO of the server; of a cluster, that of each primary that answers."""
    wanted = ("INFO", "server", "cluster", "memory", "persistence")
    client = connections.commands
    if not isinstance(client, Cluster):
        async with answered(client):
            return [await ask(client, *wanted)]
    found = []
    for node in client.get_primaries():
        try:
            async with answered(client):
                found.append(await ask(client, *wanted, target_nodes=node))
        except StoreUnavailable as error:
            log.warning("a node of the cluster does not answer: %s", error)
    return found


def _check(about: Mapping[str, Any], durability: Durability, *, clustered: bool) -> None:
    version = str(about.get("redis_version", "0.0"))
    release = tuple(int(part) for part in version.split(".")[:2])
    if release < OLDEST:
        raise StoreMisfit(f"the store is Redis {version}: Pollux needs Redis 7.0 or newer, or any Valkey")
    if durability is Durability.FSYNC and (release < OLDEST_FSYNC or not about.get("aof_enabled")):
        raise StoreMisfit("store_sync: fsync needs Redis 7.2 or newer, or Valkey, with appendonly yes")
    if about.get("cluster_enabled") and not clustered:
        raise StoreMisfit("the store is a node of a Redis Cluster: name it as cluster://host:port,host:port")


async def _lacks_notifications(connections: Connections) -> bool:
    """Whether they are off. Nothing depends on them: they only end waits sooner on records that expire."""
    try:
        async with answered(connections.commands):
            answer: Any = await connections.commands.config_get("notify-keyspace-events")
    except StoreError:
        return False  # CONFIG is often forbidden; then our advice to use it would not help either
    flags = set(str(answer.get("notify-keyspace-events", "")))
    return "K" not in flags or not ("A" in flags or {"g", "x", "e"} <= flags)


def _name(about: Mapping[str, Any]) -> str:
    if about.get("valkey_version"):
        return f"Valkey {about['valkey_version']}"
    return f"Redis {about.get('redis_version')}"


def _keeps(about: Mapping[str, Any]) -> str:
    if about.get("aof_enabled"):
        return "an append-only file"
    return "snapshots" if about.get("rdb_last_save_time") else "nothing"


async def _refused(connections: Connections, durability: Durability) -> list[str]:
    commands = [*HARMLESS, *([("WAITAOF", 0, 0, 0)] if durability is Durability.FSYNC else [])]
    async with answered(connections.commands):
        answers = await exchange(connections.commands, commands)
    refused = [
        " ".join(str(word) for word in command[: 1 + (command[0] in ("CONFIG", "XINFO"))])
        for command, answer in zip(commands, answers, strict=True)
        if isinstance(answer, NoPermissionError)
    ]
    return list(dict.fromkeys(refused))


async def _refused_channels(connections: Connections) -> list[str]:
    """The channels that the user may not listen to."""
    refused = []
    for channel in (CHECKUP, f"__keyspace@{connections.db}__:{CHECKUP}"):
        connection = connections.new_listening_connection()
        with translated():
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SUBSCRIBE", channel)
                await connection.read_response()
            except NoPermissionError:
                refused.append(f"SUBSCRIBE {channel.replace(CHECKUP, 'pollux:*')}")
            finally:
                await connection.disconnect()
    return refused
