"""Connections to the server: how many there are, how long they wait, and what their errors mean.

Commands share one bounded pool, in which a caller waits for its turn (redis-py's default raises an error when no
connection is free). Renewals have a connection of their own, so that many readers can't make a lease run out, and so
has the listener. redis-py's own retries stay on, because every script may run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from storage.cluster import Cluster, Command
from storage.errors import StoreError, StoreFull, StoreMisfit, StoreUnavailable
from storage.observer import COMMAND, NOBODY, Observer
from storage.patience import Patience, Turns

T = TypeVar("T")

POOL_SIZE = 32
"""Commands take well under a millisecond, so more connections than this only add context switches."""

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
POOL_TIMEOUT_S = 5.0
RETRIES = 3

# Errors that pass by themselves, so that the same command may succeed later: those that redis-py has a class for, and
# the first words of the others (MISCONF, for example, when the disk is full). MASTERDOWN is a subclass of CLUSTERDOWN,
# MOVED of ASK, and redis-py raises ClusterError when a slot keeps moving to another node.
_NOT_NOW = (BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError, ClusterError, AskError)
_NOT_NOW_WORDS = ("BUSY", "NOREPLICAS", "UNBLOCKED", "MISCONF")


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors into this package's.

    Raises:
        StoreUnavailable, StoreFull, StoreMisfit, StoreError

    """
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        raise _meaning(error) from error


class Single(Redis):
    """A client of one server. Callers take turns, so that the time they wait for each other is not blamed on it."""

    turns: Turns
    """As many turns as the pool has connections."""
    patience: Patience
    observer: Observer = NOBODY

    @property
    def in_use(self) -> int:
        return self.turns.taken


Client = Single | Cluster
"""A client of one server or of a cluster; both take the same commands."""


class answered:  # noqa: N801 - used as a function; as a generator it costs a store call a tenth more
    """Gives one exchange with the server its turn and its deadline, and turns redis-py's errors into this package's.

    The deadline starts after the wait for a turn, which is a wait for other callers in this process. (A cluster's
    client gives turns and deadlines by itself, for each shard.) redis-py's `socket_timeout` is not used: it sends each
    command through `asyncio.wait_for`, which costs a task for each command, and which on Python 3.11 can swallow the
    cancellation of the caller's task, so that the task never ends.

    Raises:
        StoreUnavailable, StoreFull, StoreMisfit, StoreError
    """

    __slots__ = ("_began", "_client", "_command", "_observer", "_timeout")

    def __init__(self, client: Client, command: str = COMMAND) -> None:
        self._client = None if isinstance(client, Cluster) else client
        self._observer = client.observer
        self._command = command
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        if self._client is not None:
            with translated():
                await self._client.turns.take()
            await self._timeout.__aenter__()
            self._client.patience.watch(self._timeout)
        self._began = perf_counter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.patience.forget(self._timeout)
            try:
                await self._timeout.__aexit__(kind, error, trace)
            except TimeoutError as silence:
                error = silence
            self._client.turns.give_back(silent=isinstance(error, TimeoutError))
        meaning = _meaning(error) if isinstance(error, RedisError | RedisClusterException | OSError) else None
        self._observer.answered(self._command, perf_counter() - self._began, meaning)
        if meaning is not None:
            raise meaning from error


def _meaning(error: BaseException) -> StoreError:
    # If a server refuses a new connection, for example because of a wrong password, redis-py wraps its answer.
    while isinstance(error, RedisConnectionError | RedisClusterException) and (inner := _within(error)):
        error = inner
    text = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | NoPermissionError):
        return StoreMisfit(f"the store refuses these credentials: {text}")
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, *_NOT_NOW, OSError)):
        return StoreUnavailable(text)
    if text.startswith(_NOT_NOW_WORDS):
        return StoreUnavailable(text)
    if isinstance(error, OutOfMemoryError) or "OOM" in text:
        return StoreFull(text)
    if isinstance(error, RedisClusterException):
        return StoreUnavailable(text)
    return StoreError(text)


def _within(error: BaseException) -> BaseException | None:
    inner = error.__cause__ or (error.__context__ if isinstance(error, RedisClusterException) else None)
    return inner if isinstance(inner, RedisError | RedisClusterException) else None


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A pool that asks the sentinels where the primary is. A caller waits while no connection is free."""


class Connections:
    """All connections of one process to one store, by purpose. With sentinels, they lead to the current primary."""

    def __init__(self, url: str) -> None:
        self.clustered = urlsplit(url).scheme in ("cluster", "clusters")
        self.commands = _client(url, POOL_SIZE)
        self.renewals = _client(url, 1)
        self._pool_of_listening = None if self.clustered else _pool(url, 1, **_LISTENING)

    @property
    def db(self) -> int:
        return int(self._pool_of_listening.connection_kwargs.get("db") or 0) if self._pool_of_listening else 0

    def observe(self, observer: Observer) -> None:
        self.commands.observer = self.renewals.observer = observer

    @property
    def in_use(self) -> int:
        """How many commands, renewals aside, are with the server now."""
        return self.commands.in_use

    def new_listening_connection(self) -> Connection:
        """Make a connection outside every pool, in a cluster to any node; the caller disconnects it."""
        if isinstance(self.commands, Cluster):
            return self.commands.new_connection(**_LISTENING)
        assert self._pool_of_listening is not None
        connection: Connection = self._pool_of_listening.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def aclose(self) -> None:
        await self.commands.aclose()
        await self.renewals.aclose()
        pools = [client.connection_pool for client in (self.commands, self.renewals) if isinstance(client, Redis)]
        if self._pool_of_listening is not None:
            await self._pool_of_listening.aclose()
            pools.append(self._pool_of_listening)
        for pool in pools:
            if isinstance(pool, _SentinelPool):
                for sentinel in pool.sentinel_manager.sentinels:
                    await sentinel.aclose()


# No retries, because the listener itself reconnects, with jitter. RESP2, because a subscribed connection then answers
# everything, pings included, as plain lists.
_LISTENING: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}


async def ask(client: Client, *command: Any, **options: Any) -> Any:
    """Return the answer to one command."""
    return await client.execute_command(*command, **options)  # type: ignore[no-untyped-call]


async def exchange(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Send commands one after the other on one connection. Where a command failed, its answer is the error."""
    if isinstance(client, Cluster):
        return await client.exchange(commands)
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        answers = await pipe.execute(raise_on_error=False)
    if any(isinstance(answer, ReadOnlyError) for answer in answers):
        # This server was a primary and is now a replica. A new connection, by name, may reach the new primary.
        await client.connection_pool.disconnect(inuse_connections=False)
    return answers


def _client(url: str, size: int) -> Client:
    parts = urlsplit(url)
    if parts.scheme not in ("cluster", "clusters"):
        single = cast("Single", Single.from_pool(_pool(url, size)))
        single.turns, single.patience = Turns(size), Patience(ANSWER_TIMEOUT_S)
        return single
    credentials, at, places = parts.netloc.rpartition("@")
    nodes = _places(places, 6379)
    alike = parts._replace(scheme="redis" if parts.scheme == "cluster" else "rediss", netloc=f"{credentials}{at}node")
    given: dict[str, Any] = dict(parse_url(alike.geturl()))
    given.pop("host", None)
    if given.pop("connection_class", None) is not None:
        given["ssl"] = True
    if given.pop("db", 0):
        raise ValueError("a cluster has one database")
    given.pop("max_connections", None)  # `cluster.PLACES` bounds them
    return Cluster(nodes, **{**_PATIENCE, **_OVER_TCP, **given})


def _places(text: str, default_port: int) -> list[tuple[str, int]]:
    """Parse `host:port,host:port`; IPv6 addresses are in brackets."""
    found = [urlsplit(f"//{place}") for place in text.split(",")]
    return [(place.hostname or "", place.port or default_port) for place in found]


_PATIENCE: dict[str, Any] = {
    "socket_timeout": None,
    "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), RETRIES),
    # What a connection tells of itself; by default redis-py looks its version up in the files of its package each time.
    "driver_info": DriverInfo(),
}
_OVER_TCP: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_keepalive": True}


def _pool(url: str, size: int, **options: Any) -> ConnectionPool:
    options = {
        **_PATIENCE,
        # A server that was a primary may now be a replica; a new connection, by name, may reach the new primary.
        "retry_on_error": [ReadOnlyError],
        "max_connections": size,
        "timeout": POOL_TIMEOUT_S,
        **options,
    }
    scheme = urlsplit(url).scheme
    if scheme != "unix":
        options |= _OVER_TCP
    if scheme in ("sentinel", "sentinels"):
        return _sentinel_pool(url, options)
    return BlockingConnectionPool.from_url(url, **options)


def _sentinel_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    """The pool of `sentinel://[user:password@]host:port,host:port/service[/db][?sentinel_password=…]`.

    The scheme `sentinels` means TLS; its options are in the query, as those of `rediss://`. User and password are for
    the Redis servers; a password for the sentinels, if they need one, is in the query.
    """
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service")
    nodes = _places(places, 26379)
    asked = dict(parse_qsl(parts.query))
    secure: dict[str, Any] = {}
    if parts.scheme == "sentinels":
        secure = {"ssl": True, **{name: value for name, value in asked.items() if name.startswith("ssl_")}}
        if "ssl_check_hostname" in secure:
            secure["ssl_check_hostname"] = secure["ssl_check_hostname"] == "true"
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        nodes,
        sentinel_kwargs={
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "password": asked.get("sentinel_password"),
            **secure,
        },
    )
    return _SentinelPool(  # type: ignore[no-untyped-call]
        service,
        sentinels,
        db=int(db or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        **secure,
        **options,
    )


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The answers of calls that are made at the same time, in order.

    If some fail, the first of their errors is raised once all have ended: none goes on, with its connection, unwatched.
    """
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast(list[T], answers)
