"""The listener: one subscribed connection for each process, which reconnects with jitter whenever it breaks.

In a cluster it is connected to any one node, because a cluster forwards published messages to all nodes. It does not
forward keyspace notifications: if a record on another node is removed by hand, only the hub's sweep notices.

A notification carries no state, only "look again", so missing one costs time but loses nothing. After a reconnect the
server acknowledges every subscription again, and each acknowledgement counts as a notification.
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
"""The keyspace events that mean that a record is gone. A server may be set to send others, even one for each HSET;
those are ignored, because nothing would have to be read."""

_PLACE = re.compile(rb"(\d{1,15})-(\d{1,15})")

PING_EVERY_S = 5.0
SILENCE_S = 12.0
"""After two pings without an answer the connection counts as dead, even if it was never closed."""
STEADY_S = 10.0
"""After a connection has lived this long, its successor is made without a long pause."""
LONGEST_PAUSE_S, LONGEST_PAUSE_OF_REFUSED_S = 2.0, 60.0
"""The longest pause before reconnecting; the second one applies while the server refuses our credentials or rights."""
ACKNOWLEDGED_WITHIN_S = 1.0
"""How long a new waiter waits for its subscription. After that it goes on without, and the sweep will wake it."""


class Ear(Protocol):
    """Receives what the listener hears. Both methods are called on the event loop and must neither block nor raise."""

    def heard(self, topic: Topic, to: Cursor | None) -> None:
        """Something happened on a topic. `to` is the place that a response moved to; None: unknown, read the record."""

    def revoked(self, response_id: str) -> None:
        """This response was cancelled or deleted."""


class Listener:
    """Listens for all waiters of this process. Notifications arrive only while `run` is running."""

    def __init__(self, connections: Connections, shards: int, ear: Ear) -> None:
        self._connections = connections
        self._shards = Shards(shards)
        self._ear = ear
        self._connection: Connection | None = None
        self._keyspace = f"__keyspace@{connections.db}__:"
        self._wanted: dict[Topic, list[str]] = {}
        """The topics that are listened to, with their channels."""
        self._topics: dict[str, Topic] = {}
        """The same by channel."""
        self._awaited: dict[Topic, asyncio.Future[None]] = {}
        """Subscriptions that the server has not acknowledged yet."""
        for shard in self._shards:
            self._want(Wake(shard))
            self._want(Revoked(shard))

    def _want(self, topic: Topic) -> None:
        channels = self._wanted[topic] = channels_of(topic, self._shards, self._keyspace)
        self._topics.update(dict.fromkeys(channels, topic))

    async def subscribe(self, topics: Collection[Topic]) -> None:
        """Listen to these topics too.

        Returns once the server has acknowledged them, so that nothing published later is missed. While the connection
        is down it returns at once, and reconnecting acknowledges them. Calling it again is harmless; a second call
        while the first one waits shares its acknowledgement.
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
        """Stop listening to these topics."""
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
                # Asking often does not help against missing rights. Until they are granted, sweeps wake the waiters.
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
            # `run` notices the broken connection too, and subscribes to everything again on the next one.
            log.debug("%s not sent: %s", command, error)

    def _hear(self, message: Any) -> None:
        if not isinstance(message, list) or len(message) != 3:
            return  # a pong
        kind, channel, data = message
        name = channel.decode()
        topic = self._topics.get(name)
        if topic is None:
            return  # it was unsubscribed after the server had sent this
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
            # Anything that is not a place, such as `gone`, tells the waiters to read the record.
            found = _PLACE.fullmatch(data)
            self._ear.heard(topic, Cursor(int(found[1]), int(found[2])) if found else None)


async def _read(connection: Connection) -> Any:
    # No timeout of redis-py's: silence is normal here, and the caller limits it to `SILENCE_S`.
    reading = connection.read_response(timeout=float("inf"), disconnect_on_error=False)
    return await cast("Awaitable[Any]", reading)
