"""Connections to the server: how many, how patient, and what their errors mean.

Commands share one bounded pool in which a caller waits for its turn (redis-py's default raises when it is
exhausted). Renewals have a connection of their own, so that a crowd of readers can't starve a lease, and so
has the listener. redis-py's own retries stay on, because every script may run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
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
from storage.patience import Patience, Turns

POOL_SIZE = 32
"""Commands take well under a millisecond: more connections than this only add context switches."""

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
POOL_TIMEOUT_S = 5.0
RETRIES = 3

# Replies that say "not now", not "not so": those that redis-py has a class for, and the first words of the others
# (MISCONF: the disk is full, for one). MASTERDOWN is a kind of CLUSTERDOWN, MOVED one of ASK, and a slot that is on its
# way to another node is a ClusterError in the end.
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
    """A client of one server. Callers take turns, so that their waiting for each other is not the server's time."""

    turns: Turns
    """As many as there are connections."""
    patience: Patience


Client = Single | Cluster
"""Of one server, or of a cluster of them: the same commands."""


class answered:  # noqa: N801 - used as a function; as a generator it costs a store call a tenth more
    """A turn for one exchange with the server, the deadline for its answer, and the errors of this package around it.

    The deadline is for the server alone: waiting for a turn means waiting for others of this process. (A cluster's
    client gives turns and deadlines by itself, for each shard.) It stands here and not in redis-py's `socket_timeout`:
    that one sends each command by way of `asyncio.wait_for`, which on Python 3.11 can swallow the cancellation of the
    caller's task (it then runs on for ever), and costs a task a command.

    Raises:
        StoreUnavailable, StoreFull, StoreMisfit, StoreError
    """

    __slots__ = ("_client", "_timeout")

    def __init__(self, client: Client) -> None:
        self._client = None if isinstance(client, Cluster) else client
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        if self._client is not None:
            with translated():
                await self._client.turns.take()
            await self._timeout.__aenter__()
            self._client.patience.watch(self._timeout)

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
        if isinstance(error, RedisError | RedisClusterException | OSError):
            raise _meaning(error) from error


def _meaning(error: BaseException) -> StoreError:
    # What a server answers to a new connection, a wrong password for one, redis-py wraps.
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
    """Waits for a connection as the other pool does, and asks the sentinels where the primary is."""


class Connections:
    """All connections of one process to one store, by purpose; with sentinels, to whichever is the primary."""

    def __init__(self, url: str) -> None:
        self.clustered = urlsplit(url).scheme in ("cluster", "clusters")
        self.commands = _client(url, POOL_SIZE)
        self.renewals = _client(url, 1)
        self._pool_of_listening = None if self.clustered else _pool(url, 1, **_LISTENING)

    @property
    def db(self) -> int:
        return int(self._pool_of_listening.connection_kwargs.get("db") or 0) if self._pool_of_listening else 0

    def new_listening_connection(self) -> Connection:
        """A connection outside every pool; the caller disconnects it. In a cluster, to any of its nodes."""
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


# The listener makes its own connections anew, with jitter: no retry below it. RESP2, because a subscribed connection
# then answers everything, pings included, as plain lists.
_LISTENING: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}


async def ask(client: Client, *command: Any, **options: Any) -> Any:
    """The answer to one command."""
    return await client.execute_command(*command, **options)  # type: ignore[no-untyped-call]


async def exchange(client: Client, commands: Sequence[Command]) -> list[Any]:
    """The answers to commands that follow each other on one connection; an error is the answer to its own command."""
    if isinstance(client, Cluster):
        return await client.exchange(commands)
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        answers = await pipe.execute(raise_on_error=False)
    if any(isinstance(answer, ReadOnlyError) for answer in answers):
        # Once a primary: whoever connects anew by name may find the one that is.
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
    given.pop("max_connections", None)  # there the shards' places bound them
    return Cluster(nodes, **{**_PATIENCE, **_OVER_TCP, **given})


def _places(text: str, default_port: int) -> list[tuple[str, int]]:
    """`host:port,host:port`, IPv6 in brackets."""
    found = [urlsplit(f"//{place}") for place in text.split(",")]
    return [(place.hostname or "", place.port or default_port) for place in found]


_PATIENCE: dict[str, Any] = {
    "socket_timeout": None,
    "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), RETRIES),
}
_OVER_TCP: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_keepalive": True}


def _pool(url: str, size: int, **options: Any) -> ConnectionPool:
    options = {
        **_PATIENCE,
        # Once a primary: a new connection, by name, may find the one that is.
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
    """For `sentinel://[user:password@]host:port,host:port/service[/db][?sentinel_password=…]`; `sentinels` is TLS.

    The user and password are the servers' own; the sentinels' password, where they have one, is in the query.
    """
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service")
    nodes = _places(places, 26379)
    asked = dict(parse_qsl(parts.query))
    secure = {"ssl": True} if parts.scheme == "sentinels" else {}
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
