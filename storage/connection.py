"""Connections to the server: how many, how patient, and what their errors mean.

Commands share one bounded pool in which a caller waits for its turn (redis-py's default raises when it is
exhausted). Renewals have a connection of their own, so that a crowd of readers can't starve a lease, and so
has the listener. redis-py's own retries stay on, because every script may run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from storage.errors import StoreError, StoreFull, StoreMisfit, StoreUnavailable

POOL_SIZE = 32
"""Commands take well under a millisecond: more connections than this only add context switches."""

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
POOL_TIMEOUT_S = 5.0
RETRIES = 3

# Replies that say "not now", not "not so": those that redis-py has a class for (MASTERDOWN is a kind of CLUSTERDOWN),
# and the first words of the others (MISCONF: the disk is full, for one).
_NOT_NOW = (BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)
_NOT_NOW_WORDS = ("BUSY", "NOREPLICAS", "UNBLOCKED", "MISCONF")


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors into this package's.

    Raises:
        StoreUnavailable, StoreFull, StoreMisfit, StoreError

    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise _meaning(error) from error


@asynccontextmanager
async def answered() -> AsyncIterator[None]:
    """The errors of this package around one exchange with the server, and the deadline for its answer.

    The deadline stands here and not in redis-py's `socket_timeout`: that one sends each command by way of
    `asyncio.wait_for`, which on Python 3.11 can swallow the cancellation of the caller's task (it then runs on for
    ever), and costs a task a command.

    Raises:
        StoreUnavailable, StoreFull, StoreMisfit, StoreError
    """
    with translated():
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            yield


def _meaning(error: BaseException) -> StoreError:
    # What a server answers to a new connection, a wrong password for one, redis-py wraps.
    while isinstance(error, RedisConnectionError) and isinstance(error.__cause__, RedisError):
        error = error.__cause__
    text = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | NoPermissionError):
        return StoreMisfit(f"the store refuses these credentials: {text}")
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, *_NOT_NOW, OSError)):
        return StoreUnavailable(text)
    if text.startswith(_NOT_NOW_WORDS):
        return StoreUnavailable(text)
    if isinstance(error, OutOfMemoryError) or "OOM" in text:
        return StoreFull(text)
    return StoreError(text)


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a connection as the other pool does, and asks the sentinels where the primary is."""


class Connections:
    """All connections of one process to one server, by purpose; with sentinels, to whichever is the primary."""

    def __init__(self, url: str) -> None:
        self.commands = Redis.from_pool(_pool(url, POOL_SIZE))
        self.renewals = Redis.from_pool(_pool(url, 1))
        # The listener makes its own connections anew, with jitter: no retry below it. RESP2, because a subscribed
        # connection then answers everything, pings included, as plain lists.
        self._listening = _pool(url, 1, protocol=2, retry=Retry(NoBackoff(), 0))

    @property
    def db(self) -> int:
        return int(self._listening.connection_kwargs.get("db") or 0)

    def new_listening_connection(self) -> Connection:
        """A connection outside every pool; the caller disconnects it."""
        connection: Connection = self._listening.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def aclose(self) -> None:
        await self.commands.aclose()
        await self.renewals.aclose()
        await self._listening.aclose()
        for pool in (self.commands.connection_pool, self.renewals.connection_pool, self._listening):
            if isinstance(pool, _SentinelPool):
                for sentinel in pool.sentinel_manager.sentinels:
                    await sentinel.aclose()


def _pool(url: str, size: int, **options: Any) -> ConnectionPool:
    options = {
        "socket_timeout": None,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), RETRIES),
        "max_connections": size,
        "timeout": POOL_TIMEOUT_S,
        **options,
    }
    scheme = urlsplit(url).scheme
    if scheme != "unix":
        options |= {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_keepalive": True}
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
    nodes = [(host, int(port or 26379)) for host, _, port in (place.rpartition(":") for place in places.split(","))]
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
