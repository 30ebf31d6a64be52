"""Connections to the server: how many, how patient, and what their errors mean.

Commands share one bounded pool in which a caller waits for its turn (redis-py's default raises when it is
exhausted). Renewals have a connection of their own, so that a crowd of readers can't starve a lease, and so
has the listener. redis-py's own retries stay on, because every script may run twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
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

# Prefixes of replies that say "not now", not "not so".
_PASSING = ("MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "BUSY", "NOREPLICAS", "UNBLOCKED")


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors into this package's.

    Raises:
        StoreUnavailable, StoreFull, StoreMisfit, StoreError

    """
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise StoreMisfit(f"the store refuses these credentials: {error}") from error
    except (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OSError) as error:
        raise StoreUnavailable(str(error) or type(error).__name__) from error
    except OutOfMemoryError as error:
        raise StoreFull(str(error)) from error
    except ResponseError as error:
        if str(error).startswith(_PASSING):
            raise StoreUnavailable(str(error)) from error
        if "OOM" in str(error):
            raise StoreFull(str(error)) from error
        raise StoreError(str(error)) from error
    except RedisError as error:
        raise StoreError(str(error)) from error


class Connections:
    """All connections of one process to one server, by purpose."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Given to redis-py once for each pool: it mutates what it gets.
        self._options = _options(url)
        self.commands = _client(url, POOL_SIZE)
        self.renewals = _client(url, 1)
        self._listening = ConnectionPool.from_url(
            # The listener makes its own connections anew, with jitter: no retry below it. RESP2, because
            # a subscribed connection then answers everything, pings included, as plain lists.
            url,
            **self._options,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )

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


def _options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {"socket_timeout": ANSWER_TIMEOUT_S}
    if urlsplit(url).scheme != "unix":
        options["socket_connect_timeout"] = CONNECT_TIMEOUT_S
        options["socket_keepalive"] = True
    return options


def _client(url: str, size: int) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        **_options(url),
        max_connections=size,
        timeout=POOL_TIMEOUT_S,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), RETRIES),
    )
    return Redis.from_pool(pool)
