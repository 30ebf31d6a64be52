"""The listener: one subscribed connection a process, made anew with jitter whenever it breaks.

In a cluster it is a connection to any node, because what is published on one is heard on all. Keyspace notifications
are not: of records on other nodes that are removed by hand, only a sweep tells.

A notification carries no state, only "look again". What is missed while the connection is down costs nothing but
time: on reconnecting every subscription is acknowledged anew, and an acknowledgement counts as a notification.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, Protocol, cast

from redis.asyncio import Connection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from storage.connection import Connections
from storage.keys import Shards
from storage.records import Cursor
from storage.topics import Revoked, Topic, Wake, channels_of

log = logging.getLogger("pollux.store")

REMOVED = (b"del", b"expired", b"evicted")
"""What is heard of a record's key. A server may be set to tell more, each HSET even: that would wake in vain."""

_PLACE = re.compile(rb"(\d{1,15})-(\d{1,15})")

PING_EVERY_S = 5.0
SILENCE_S = 12.0
"""Two pings without an answer: the connection is dead, though nobody said so."""
STEADY_S = 10.0
"""A connection that lived this long has earned a quick successor."""
LONGEST_PAUSE_S, LONGEST_PAUSE_OF_REFUSED_S = 2.0, 60.0
"""Between two connections that break at once; the second where the server refuses what we may not."""
ACKNOWLEDGED_WITHIN_S = 1.0
"""How long a new waiter waits for its subscription before it goes on without: the sweep will find it."""


class Ear(Protocol):
    """Who is told. Both are called on the event loop and must neither block nor raise."""

    def heard(self, topic: Topic, to: Cursor | None) -> None:
        """Something happened. `to` is the place that a response moved to; None: look for yourself."""

    def revoked(self, response_id: str) -> None:
        """This response was cancelled or deleted."""


class Listener:
    """Listens for all waiters of this process. `run` must be running for anything to arrive."""

    def __init__(self, connections: Connections, shards: int, ear: Ear) -> None:
        self._connections = connections
        self._shards = Shards(shards)
        self._ear = ear
        self._connection: Connection | None = None
        self._keyspace = f"__keyspace@{connections.db}__:"
        self._wanted: dict[Topic, list[str]] = {}
        """What is listened to, and on which channels."""
        self._topics: dict[str, Topic] = {}
        """By channel."""
        self._awaited: dict[Topic, asyncio.Future[None]] = {}
        """Subscriptions that the server has not acknowledged yet."""
        for shard in self._shards:
            self._want(Wake(shard))
            self._want(Revoked(shard))

    def _want(self, topic: Topic) -> None:
        channels = self._wanted[topic] = channels_of(topic, self._shards, self._keyspace)
        self._topics.update(dict.fromkeys(channels, topic))

    async def subscribe(self, topics: Collection[Topic]) -> None:
        """From the return on, these are heard; or the connection is down, and they are heard later.

        Idempotent; a second call while the first one waits shares its acknowledgement.
        """
        new = [topic for topic in topics if topic not in self._wanted]
        for topic in new:
            self._want(topic)
        if self._connection is None:
            return
        for topic in new:
            self._awaited[topic] = asyncio.get_running_loop().create_future()
        waiting = [self._awaited[topic] for topic in topics if topic in self._awaited]
        if new:
            await self._send("SUBSCRIBE", [channel for topic in new for channel in self._wanted[topic]])
        if waiting:
            await asyncio.wait(waiting, timeout=ACKNOWLEDGED_WITHIN_S)

    async def unsubscribe(self, topics: Collection[Topic]) -> None:
        """Nobody listens to these any more."""
        channels: list[str] = []
        for topic in topics:
            channels += self._wanted.pop(topic, ())
            if waiting := self._awaited.pop(topic, None):
                waiting.cancel()
        for channel in channels:
            self._topics.pop(channel, None)
        if channels:
            await self._send("UNSUBSCRIBE", channels)

    async def run(self) -> None:
        """Listen until cancelled."""
        loop = asyncio.get_running_loop()
        failures, longest_pause_s = 0, LONGEST_PAUSE_S
        while True:
            began = loop.time()
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                failures = 0 if loop.time() - began > STEADY_S else failures + 1
                # Rights don't change by asking: until somebody grants them, sweeps find what is not heard.
                refused = isinstance(error, NoPermissionError | AuthenticationError)
                longest_pause_s = LONGEST_PAUSE_OF_REFUSED_S if refused else LONGEST_PAUSE_S
                if failures & (failures - 1) <= 0:  # the first, the second, the fourth, the eighth time …
                    log.warning("listener lost its connection, making a new one: %s", error)
            finally:
                await self._disconnect()
            # Full jitter: after a restart of the store, a fleet must not come back in one instant.
            await asyncio.sleep(random.uniform(0.02, min(longest_pause_s, 0.1 * 2 ** min(failures, 16))))  # noqa: S311

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        for waiting in self._awaited.values():
            waiting.cancel()
        self._awaited.clear()
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _listen(self) -> None:
        connection = self._connections.new_listening_connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection
        for channels in list(self._wanted.values()):
            await self._send("SUBSCRIBE", channels)
        pinging = asyncio.create_task(self._ping(connection))
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    message = await _read(connection)
                self._hear(message)
        finally:
            pinging.cancel()

    async def _ping(self, connection: Connection) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            await self._send("PING", (), connection)

    async def _send(self, command: str, args: Sequence[str], connection: Connection | None = None) -> None:
        connection = connection or self._connection
        if connection is None or not connection.is_connected:
            return
        try:
            await connection.send_packed_command(connection.pack_command(command, *args), check_health=False)
        except (RedisError, OSError, TimeoutError) as error:
            # `run` sees the broken connection too, and says everything again on the next one.
            log.debug("%s not sent: %s", command, error)

    def _hear(self, message: Any) -> None:
        if not isinstance(message, list) or len(message) != 3:
            return  # a pong
        kind, channel, data = message
        name = channel.decode()
        topic = self._topics.get(name)
        if topic is None:
            return  # nobody listens to it any more
        if kind == b"subscribe":
            self._acknowledged(topic, name)
        elif kind == b"message":
            self._told(topic, name, data)

    def _acknowledged(self, topic: Topic, channel: str) -> None:
        if channel != self._wanted[topic][-1]:
            return
        if waiting := self._awaited.pop(topic, None):
            waiting.set_result(None)
        self._ear.heard(topic, None)

    def _told(self, topic: Topic, channel: str, data: bytes) -> None:
        if isinstance(topic, Revoked):
            self._ear.revoked(data.decode())
        elif channel.startswith(self._keyspace):
            if data in REMOVED:
                self._ear.heard(topic, None)
        else:
            # `gone`, and whatever somebody else may publish here, is: look for yourself.
            found = _PLACE.fullmatch(data)
            self._ear.heard(topic, Cursor(int(found[1]), int(found[2])) if found else None)


async def _read(connection: Connection) -> Any:
    # No deadline of redis-py's own: silence is normal here, and `SILENCE_S` bounds it.
    reading = connection.read_response(timeout=float("inf"), disconnect_on_error=False)
    return await cast("Awaitable[Any]", reading)
