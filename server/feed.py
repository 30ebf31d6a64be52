"""The feed of status events in this process: one reader for each shard, which feeds all subscribers.

A reader sleeps until its shard's feed has grown, reads what is new, keeps it for a while, and wakes the subscribers
that it concerns. Each subscriber then takes what lies behind its own place. So there is no queue for each subscriber,
and one that was away for longer than is kept here reads from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from server.hub import Hub
from server.protocol.status_events import shown_metadata, status_event
from storage import Fed, Place, Shard, StatusEntry, Store, StoreError, StoreUnavailable

log = logging.getLogger("pollux.feed")

LOOK_EVERY_S = 5.0
"""How often a feed is read although nothing was heard: a lost notification costs no more than this."""
KEPT, KEPT_BYTES = 1024, 1024 * 1024
"""Entries of one audience that are kept here, and their metadata. Who lags behind them reads from the store."""
END = Place(10**15 - 1)
"""Behind every entry."""


def event_about(entry: StatusEntry, *, owner_shown: bool = False) -> dict[str, Any]:
    """The event that an entry stands for, as the feed and webhooks tell it."""
    return status_event(
        entry.status,
        entry.response_id,
        entry.place.ms // 1000,
        model=entry.model,
        metadata=shown_metadata(entry.metadata),
        owner=entry.owner if owner_shown else None,
    )


@dataclass(frozen=True, slots=True)
class Audience:
    """Which entries of a shard a subscriber follows: those of an owner, of one response, or (with neither) all."""

    shard: Shard
    owner: str = ""
    response_id: str = ""

    def concerns(self, entry: StatusEntry) -> bool:
        if self.response_id:
            return entry.response_id == self.response_id
        return not self.owner or entry.owner == self.owner


class FeedCut(Exception):
    """It can't be followed here any longer: the process drains, or its store is away. Elsewhere it goes on."""


@dataclass(frozen=True, slots=True)
class News:
    """Consecutive entries of a shard for one subscriber; none, if there are none (for now)."""

    shard: Shard
    entries: tuple[StatusEntry, ...] = ()
    missed_before: Place | None = None
    """The oldest entry that is kept, if entries before it may have been dropped unseen."""


class _Recent:
    """What one audience was told lately, and who listens."""

    def __init__(self, start: Place) -> None:
        self.start = start
        """Of what lies behind this place, nothing is missing here."""
        self._entries: deque[StatusEntry] = deque()
        self._bytes = 0
        self.followers: set[asyncio.Event] = set()

    def take(self, entry: StatusEntry) -> None:
        self._entries.append(entry)
        self._bytes += len(entry.metadata)
        while len(self._entries) > KEPT or self._bytes > KEPT_BYTES:
            dropped = self._entries.popleft()
            self._bytes -= len(dropped.metadata)
            self.start = dropped.place
        for changed in self.followers:
            changed.set()

    def end_at(self, place: Place) -> None:
        """The feed ends there: what was kept of the time behind it is lost."""
        while self._entries and self._entries[-1].place > place:
            self._bytes -= len(self._entries.pop().metadata)
        self.start = min(self.start, place)

    def behind(self, place: Place) -> list[StatusEntry]:
        found: list[StatusEntry] = []
        for entry in reversed(self._entries):
            if entry.place <= place:
                break
            found.append(entry)
        return found[::-1]


class _Reader:
    """Reads the feed of one shard for all who follow it here."""

    def __init__(self, store: Store, hub: Hub, shard: Shard) -> None:
        self._store = store
        self._hub = hub
        self.shard = shard
        self.end = END
        """The place up to which it has read; `END` until it has looked for the first time."""
        self.looked = asyncio.Event()
        self.over = False
        """It has ended: the process drains, or the store is away for too long. Its followers end too."""
        self.falls, self.fell_to = 0, END
        """How many times a failover of the store has lost the end of the feed, and where it ended then."""
        self.recent: dict[Audience, _Recent] = {}
        # It outlives the request that needs it first, and must not speak in its name.
        self.task = asyncio.create_task(self._run(), name=f"feed {shard.n}", context=Context())

    async def _run(self) -> None:
        looks = self._hub.observe([Fed(self.shard)], self._look, tick_s=LOOK_EVERY_S)
        try:
            async with aclosing(looks):
                async for _ in looks:
                    self.looked.set()
        except StoreError as error:
            log.warning("the feed of shard %d can't be read, its subscribers are cut off: %s", self.shard.n, error)
        except Exception:
            log.exception("the feed of shard %d broke, its subscribers are cut off", self.shard.n)
        finally:
            self.over = True
            self.looked.set()
            for recent in self.recent.values():
                for changed in recent.followers:
                    changed.set()

    async def _look(self) -> None:
        while True:
            page = await self._store.feed.read(self.shard, self.end)
            for entry in page.entries:
                self._tell(entry)
            if page.entries:
                self.end = page.entries[-1].place
            if page.entries and self.end < page.newest:
                continue
            if page.newest < self.end:
                for recent in self.recent.values():
                    recent.end_at(page.newest)
                if self.end is not END:
                    self.falls, self.fell_to = self.falls + 1, page.newest
            self.end = page.newest
            return

    def _tell(self, entry: StatusEntry) -> None:
        for audience in (
            Audience(self.shard),
            Audience(self.shard, entry.owner),
            Audience(self.shard, response_id=entry.response_id),
        ):
            if recent := self.recent.get(audience):
                recent.take(entry)

    def join(self, audience: Audience, changed: asyncio.Event) -> None:
        recent = self.recent.get(audience) or self.recent.setdefault(audience, _Recent(self.end))
        recent.followers.add(changed)

    def leave(self, audience: Audience, changed: asyncio.Event) -> None:
        recent = self.recent[audience]
        recent.followers.discard(changed)
        if not recent.followers:
            del self.recent[audience]


class Feed:
    """The readers of this process. Each one runs while somebody follows its shard."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._readers: dict[Shard, _Reader] = {}

    @asynccontextmanager
    async def follow(self, audiences: Collection[Audience]) -> AsyncIterator[Following]:
        """Follow these from now on.

        Raises:
            StoreUnavailable: where a feed ends can't be found out
        """
        changed = asyncio.Event()
        readers = {audience.shard: self._reader(audience.shard) for audience in audiences}
        for audience in audiences:
            # Before the first await: a reader that nobody follows is ended.
            readers[audience.shard].join(audience, changed)
        try:
            for reader in readers.values():
                await reader.looked.wait()
                if reader.end is END:
                    # Without a place nobody could go on later.
                    raise StoreUnavailable(f"the feed of shard {reader.shard.n} can't be read")
            yield Following(self._store, audiences, readers, changed)
        finally:
            for audience in audiences:
                readers[audience.shard].leave(audience, changed)
            for reader in readers.values():
                await self._end_unless_needed(reader)

    def _reader(self, shard: Shard) -> _Reader:
        reader = self._readers.get(shard)
        if reader is None or reader.over:
            reader = self._readers[shard] = _Reader(self._store, self._hub, shard)
        return reader

    async def _end_unless_needed(self, reader: _Reader) -> None:
        if reader.recent or reader.task.done():
            return
        if self._readers.get(reader.shard) is reader:
            del self._readers[reader.shard]
        reader.task.cancel()
        await asyncio.wait([reader.task])


class Following:
    """One subscriber on the way through the feeds that it follows."""

    def __init__(
        self,
        store: Store,
        audiences: Collection[Audience],
        readers: Mapping[Shard, _Reader],
        changed: asyncio.Event,
    ) -> None:
        self._store = store
        self._audiences = audiences
        self._readers = readers
        self._falls = {shard: reader.falls for shard, reader in readers.items()}
        self.changed = changed
        """Set whenever there are news. Whoever sets it makes `news` look at once."""
        self.places = {shard: reader.end for shard, reader in readers.items()}
        """The places up to which it has everything: to begin with, the ends."""

    async def news(self, since: Mapping[Shard, Place], *, tick_s: float) -> AsyncGenerator[News, None]:
        """Everything behind the places `since`, then what comes; at least one, maybe empty, every `tick_s`.

        For shards that are not among them it begins now.

        Raises:
            FeedCut
            StoreError
        """
        for shard, place in since.items():
            self.places[shard] = place
            async for page in self._stored(shard):
                yield page
        while True:
            self.changed.clear()
            for shard, reader in self._readers.items():
                async for page in self._recent(shard, reader):
                    yield page
            if any(reader.over for reader in self._readers.values()):
                raise FeedCut
            yield News(shard)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self.changed.wait()

    async def _recent(self, shard: Shard, reader: _Reader) -> AsyncGenerator[News, None]:
        if self._falls[shard] != reader.falls:
            self._falls[shard] = reader.falls
            self.places[shard] = min(self.places[shard], reader.fell_to)
        mine = [reader.recent[audience] for audience in self._audiences if audience.shard == shard]
        while any(recent.start > self.places[shard] for recent in mine):
            # This subscriber is slow, or there were very many at once: maybe again while it was told of the others.
            if reader.over:
                return
            async for page in self._stored(shard):
                yield page
        found = [entry for recent in mine for entry in recent.behind(self.places[shard])]
        if len(mine) > 1:
            found.sort(key=lambda entry: entry.place)
        self.places[shard] = max(self.places[shard], reader.end)
        if found:
            yield News(shard, tuple(found))

    async def _stored(self, shard: Shard) -> AsyncGenerator[News, None]:
        """What the store has behind the place, page by page."""
        mine = [audience for audience in self._audiences if audience.shard == shard]
        first = True
        while True:
            before = self.places[shard]
            page = await self._store.feed.read(shard, before)
            self.places[shard] = page.entries[-1].place if page.entries else page.newest
            entries = tuple(entry for entry in page.entries if any(one.concerns(entry) for one in mine))
            # Later pages begin at an entry that was there a moment ago, however old that is.
            missing = page.missing if first else page.oldest is not None and before < page.oldest
            missed = (page.oldest or page.newest) if missing else None
            if entries or missed:
                yield News(shard, entries, missed)
            if not page.entries or self.places[shard] >= page.newest:
                return
            first = False
