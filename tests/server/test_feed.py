"""Following the feed in this process: nothing is passed over, however slow a subscriber is, or away the store."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from server import feed as module
from server.feed import Audience, Feed
from server.hub import Hub
from server.responses.subscribe import Interest, NativeStatus, Subscriber, _data
from storage import FeedPage, Place, Shard, StatusEntry, Store, StoreError, StoreUnavailable
from storage.feed import PAGE_ENTRIES
from storage.keys import Shards

SHARD = Shard(0)


class Log:
    """The feed of a store, in memory."""

    def __init__(self) -> None:
        self.entries: list[StatusEntry] = []
        self.trimmed = Place(0)
        self.error: StoreError | None = None
        self.changed = asyncio.Event()
        self.shards = Shards(1)

    def grow(self, count: int, metadata: bytes = b"") -> None:
        for _ in range(count):
            place = Place(1_000_000 + len(self.entries))
            self.entries.append(StatusEntry(place, "completed", f"r{len(self.entries)}", "alice", "m", metadata))
        self.changed.set()

    async def read(self, _shard: Shard, after: Place) -> FeedPage:
        if self.error:
            raise self.error
        kept = [entry for entry in self.entries if entry.place >= self.trimmed]
        oldest, newest = (kept[0].place, kept[-1].place) if kept else (None, Place(999_999))
        page = [entry for entry in kept if entry.place > after][:PAGE_ENTRIES]
        missing = bool(oldest and len(kept) < len(self.entries) and after < oldest)
        return FeedPage(tuple(page), oldest, newest, missing)

    @asynccontextmanager
    async def watch(self, _topics: object, *, waits: bool = False) -> AsyncIterator[asyncio.Event]:
        yield self.changed


def feed_of(log: Log) -> Feed:
    hub = Hub.__new__(Hub)
    hub.draining = hub.closed = False
    hub.watch = log.watch  # type: ignore[assignment,method-assign]
    return Feed(cast("Store", SimpleNamespace(feed=log)), hub)


@pytest.fixture
def log() -> Log:
    return Log()


async def test_a_subscriber_that_is_slow_twice_misses_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    told: list[str] = []
    async with (
        feed_of(log).follow([Audience(SHARD, "alice")]) as following,
        aclosing(following.news({}, tick_s=1)) as all_news,
    ):
        await anext(all_news)
        for growth in (30, 30, 30):
            # Meanwhile it has not even begun to read the last page.
            log.grow(growth)
            await asyncio.sleep(0.01)
            told += [entry.response_id for entry in (await anext(all_news)).entries]
        async for news in all_news:
            told += [entry.response_id for entry in news.entries]
            if not news.entries:
                break
    assert told == [entry.response_id for entry in log.entries]


async def test_large_metadata_is_not_kept_for_long(log: Log) -> None:
    async with feed_of(log).follow([Audience(SHARD, "alice")]) as following:
        told = 0
        async with aclosing(following.news({}, tick_s=0.01)) as all_news:
            await anext(all_news)
            tracemalloc.start()
            for _ in range(300):
                log.grow(1, b'{"a": "%b"}' % (b"x" * 60_000))
                while not (news := await anext(all_news)).entries:
                    pass
                told += len(news.entries)
                [_data(entry, owner_shown) for entry in news.entries for owner_shown in (True, False)]
                log.entries[-1] = replace(log.entries[-1], metadata=b"")
            kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert told == 300
    assert kept < 4_000_000


async def test_who_is_overtaken_between_two_pages_is_told_of_the_gap(log: Log) -> None:
    log.grow(2 * PAGE_ENTRIES + 10)
    async with (
        feed_of(log).follow([Audience(SHARD, "alice")]) as following,
        aclosing(following.news({SHARD: Place(0)}, tick_s=1)) as all_news,
    ):
        first = await anext(all_news)
        assert len(first.entries) == PAGE_ENTRIES
        assert first.missed_before is None
        log.trimmed = log.entries[PAGE_ENTRIES + 100].place
        second = await anext(all_news)
        assert second.entries[0].place == second.missed_before == log.trimmed


async def test_a_feed_that_can_not_be_read_is_not_followed(log: Log) -> None:
    log.error = StoreError("WRONGTYPE")
    with pytest.raises(StoreUnavailable):
        async with feed_of(log).follow([Audience(SHARD, "alice")]):
            pass
    log.error = None
    async with feed_of(log).follow([Audience(SHARD, "alice")]) as following:
        assert following.places == {SHARD: Place(999_999)}


async def test_what_a_failover_has_lost_is_not_told_again_and_again(log: Log) -> None:
    async with (
        feed_of(log).follow([Audience(SHARD, "alice")]) as following,
        aclosing(following.news({}, tick_s=0.01)) as all_news,
    ):
        log.grow(5)
        told = 0
        for _ in range(20):
            told += len((await anext(all_news)).entries)
            if told == 5:
                del log.entries[3:]
                log.changed.set()
                await asyncio.sleep(0.01)
        assert told == 5


async def test_a_native_response_that_ends_while_the_present_is_looked_up_is_told_of(log: Log) -> None:
    async def statuses(ids: list[str]) -> list[StatusEntry | None]:
        await asyncio.sleep(0.02)
        return [StatusEntry(Place(5), "completed", one, "alice", "m", b"") for one in ids]

    async def native() -> AsyncIterator[NativeStatus]:
        yield NativeStatus("completed", 7, "m", {})

    feed = feed_of(log)
    store = cast("Store", SimpleNamespace(feed=log, responses=SimpleNamespace(statuses=statuses)))
    interest = Interest("alice", [SHARD], ids=("cached",), natives={"native": native})
    frames = b"".join([chunk async for chunk in Subscriber(feed, store, interest).follow(None, tick_s=1)])
    assert frames.count(b"event: response.completed\n") == 2


async def test_a_key_with_models_is_told_in_a_gap_what_is_gone(log: Log) -> None:
    async def statuses(ids: list[str]) -> list[StatusEntry | None]:
        return [None for _ in ids]

    log.grow(5)
    log.trimmed = log.entries[3].place
    store = cast("Store", SimpleNamespace(feed=log, responses=SimpleNamespace(statuses=statuses)))
    interest = Interest("alice", [SHARD], ids=("gone",), may_be_told=lambda model: model == "m")
    stream = Subscriber(feed_of(log), store, interest).follow({SHARD: Place(1)}, tick_s=1)
    frames = b"".join([chunk async for chunk in stream])
    assert b"event: response.deleted\n" in frames
