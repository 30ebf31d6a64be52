"""Opening the store: find the server, check that it can be used, and agree on the settings that are kept in it."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.connection import Connections, answered
from storage.deliveries import Deliveries
from storage.embedded import default_directory, embedded_server
from storage.errors import StoreMisfit, StoreUnavailable
from storage.feed import Feed
from storage.formats import FORMAT, OLDEST_READ, check_store
from storage.inspection import Checkup, check_up, inspect
from storage.jobs import Jobs
from storage.keys import SETTINGS
from storage.notify import Ear, Listener
from storage.observer import Observer
from storage.overview import Overviews
from storage.owed import Hooks, no_hooks
from storage.processes import Processes
from storage.rates import Rates
from storage.records import Durability
from storage.responses import Responses
from storage.room import Room, room_at
from storage.scripts import SETTLE
from storage.statuses import DAY, Retention
from storage.terms import LEDGER, Ledger, Terms
from storage.usage import Usage

log = logging.getLogger("pollux.store")

SHARDS_OF_CLUSTER = 16
"""Enough to spread the owners over a handful of nodes."""
ASK_EVERY_S = 0.5
"""A server that does not answer (yet) is asked again after this time."""
FIRST_SILENCE_S, LONGEST_SILENCE_S = 1.0, 60.0
"""The shortest and the longest time between two warnings that we still wait; it doubles each time."""


@dataclass(frozen=True)
class Store:
    """An open store."""

    name: str
    """The store's URL without its password, for logs."""
    shards: int
    id_secret: bytes
    """32 random bytes, made once and the same for every process on this store."""
    responses: Responses
    jobs: Jobs
    feed: Feed
    deliveries: Deliveries
    rates: Rates
    usage: Usage
    overviews: Overviews
    processes: Processes
    connections: Connections
    durability: Durability

    def new_listener(self, ear: Ear) -> Listener:
        return Listener(self.connections, self.shards, ear)

    def observe(self, observer: Observer) -> None:
        """Have this observer told of each exchange with the server from now on."""
        self.connections.observe(observer)

    @property
    def exchanges(self) -> int:
        """How many exchanges with the server are under way: so many connections are in use."""
        return self.connections.in_use

    async def room(self) -> Room:
        """How full the server is; of a cluster, the fullest primary. Raises `StoreUnavailable`."""
        return await room_at(self.connections)

    async def check_up(self) -> Checkup:
        """All that can be found out about the server. Raises `StoreMisfit`, `StoreUnavailable`."""
        return await check_up(self.connections, self.durability)

    async def ping(self) -> None:
        """Raise `StoreUnavailable` unless the server answers; of a cluster, the node that keeps the settings."""
        await _ping(self.connections)


@asynccontextmanager
async def open_store(
    url: str,
    shards: int | None = None,
    durability: Durability = Durability.NONE,
    *,
    packed: bool = True,
    retention: Retention = DAY,
    hooks: Hooks = no_hooks,
    ledger: Ledger = LEDGER,
    patience_s: float = math.inf,
) -> AsyncIterator[Store]:
    """Open `embedded://[directory]`, `redis://…`, `rediss://…`, `unix://…`, `sentinel://…` or `cluster://…`.

    `packed` decides how new events are stored; both forms can be read. Without `shards`, an existing store keeps its
    number; a new one gets 1, and on a cluster `SHARDS_OF_CLUSTER`.
    A server that does not answer is waited for, with warnings at growing intervals, up to `patience_s`.

    `hooks` names endpoints of webhooks that are owed events, besides those that the store has; `ledger` says how
    usage is kept.

    Raises:
        StoreMisfit: this server can't be used, or the embedded one can't be started; the message says why
        StoreUnavailable: no server answered within `patience_s`

    """
    terms = Terms(durability, packed, retention, hooks, ledger)
    with _readable():
        parts = urlsplit(url)
    if parts.scheme == "embedded":
        place = unquote(parts.netloc + parts.path)
        directory = _absolute(place) if place else default_directory()
        async with embedded_server(directory) as server, _connected(f"unix://{server.socket_path}") as links:
            name = f"embedded://{directory}"
            yield await _store(name, links, shards, terms, patience_s)
    elif parts.scheme in ("redis", "rediss", "unix", "sentinel", "sentinels", "cluster", "clusters"):
        async with _connected(url) as links:
            name = _without_password(url)
            yield await _store(name, links, shards, terms, patience_s)
    else:
        raise StoreMisfit(
            f"the store {parts.scheme or url!r} is not known: use embedded://[directory], redis://host:port/db, "
            "rediss://…, unix:///path/to/socket, sentinel://host:port,host:port/service or cluster://host:port,host:port"
        )


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connections]:
    with _readable():
        connections = Connections(url)
        connections.new_listening_connection()  # not connected, only made: that checks the options of the URL
    try:
        yield connections
    finally:
        await connections.aclose()


async def _store(name: str, connections: Connections, shards: int | None, terms: Terms, patience_s: float) -> Store:
    settled = partial(_settled, connections, shards, terms.durability)
    shards, secret = await _waited_for(name, settled, patience_s)
    return Store(
        name=name,
        shards=shards,
        id_secret=secret,
        responses=Responses(connections, shards, terms),
        jobs=Jobs(connections, shards, terms),
        feed=Feed(connections, shards, terms.retention),
        deliveries=Deliveries(connections, shards),
        rates=Rates(connections, shards),
        usage=Usage(connections, shards, terms),
        overviews=Overviews(connections, shards),
        processes=Processes(connections),
        connections=connections,
        durability=terms.durability,
    )


async def _waited_for(
    name: str, attempt: Callable[[], Awaitable[tuple[int, bytes]]], patience_s: float
) -> tuple[int, bytes]:
    """Repeat `attempt` until a server answers, and return its result."""
    clock = asyncio.get_running_loop().time
    began = warn_at = clock()
    silence_s = FIRST_SILENCE_S
    while True:
        try:
            return await attempt()
        except StoreUnavailable as error:
            waited_s = clock() - began
            if waited_s > patience_s:
                raise StoreUnavailable(f"no store answers at {name}: {error}") from error
            if clock() >= warn_at:
                log.warning("waiting for the store at %s, for %d s so far: %s", name, waited_s, error)
                warn_at, silence_s = clock() + silence_s, min(2 * silence_s, LONGEST_SILENCE_S)
        await asyncio.sleep(ASK_EVERY_S)


async def _settled(connections: Connections, shards: int | None, durability: Durability) -> tuple[int, bytes]:
    """Reach the server, check that it can be used, and agree with the other processes. May be repeated."""
    await _ping(connections)
    for remark in await inspect(connections, durability):
        log.warning(remark)
    return await _settle(connections, shards)


async def _ping(connections: Connections) -> None:
    # Not PING: any node of a cluster would answer that, even while the one with our settings is down.
    async with answered(connections.commands):
        await connections.commands.exists(SETTINGS)


async def _settle(connections: Connections, shards: int | None) -> tuple[int, bytes]:
    """Agree with all other processes on the number of shards, on the secret and on the format."""
    kept, secret, newest = await SETTLE.run(
        connections.commands,
        settings=SETTINGS,
        shards=shards or "",
        first_shards=SHARDS_OF_CLUSTER if connections.clustered else 1,
        id_secret=secrets.token_hex(32),
        format=FORMAT,
        oldest_read=OLDEST_READ,
    )
    check_store(newest)
    if shards is not None and int(kept) != shards:
        raise StoreMisfit(
            f"the store was made with shards: {int(kept)}, the config says {shards}: keys would be looked for in "
            "the wrong place. Set it back, or use an empty store."
        )
    return int(kept), bytes.fromhex(secret.decode())


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError):
        # The original message is dropped: it quotes the part that could not be parsed, maybe half of a password.
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
