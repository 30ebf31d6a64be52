"""Subscribing to status events: what one subscriber is told, in which order, and when there is nothing more to tell."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from server.errors import PolluxError
from server.feed import Audience, Feed, FeedCut, Following, News
from server.protocol import jsontext
from server.protocol.status_events import (
    DELETED,
    GAP,
    gap_event,
    has_ended,
    kind_of,
    rank_of,
    shown_metadata,
    status_event,
)
from storage import Place, Shard, StatusEntry, Store, StoreError, parse_place

RETRY_MS = 2000
"""How long a client waits before it connects anew: the stream asks it to."""

LAST_NUMBER = 10**15 - 1
"""Behind all entries of one millisecond."""
log = logging.getLogger("pollux.feed")

_POSITION = re.compile(r"(\d{1,4}):(\d{1,15}-\d{1,15})")


class BadCursor(ValueError):
    """Not a cursor of a feed."""


def encode_cursor(places: Mapping[Shard, Place]) -> str:
    """The places of a subscriber in the feeds that it follows: `<shard>:<place>`, one behind the other."""
    return ".".join(f"{shard.n}:{place}" for shard, place in places.items())


def decode_cursor(text: str, shards: Sequence[Shard]) -> dict[Shard, Place]:
    """The places in those of these shards that the cursor names.

    Raises:
        BadCursor
    """
    found: dict[Shard, Place] = {}
    of = {shard.n: shard for shard in shards}
    for position in text.split("."):
        match = _POSITION.fullmatch(position)
        place = parse_place(match[2]) if match else None
        if match is None or place is None:
            raise BadCursor
        if shard := of.get(int(match[1])):
            found[shard] = place
    return found


@dataclass(frozen=True, slots=True)
class NativeStatus:
    """The status of a response that lives at a provider."""

    status: str
    at_s: int
    model: str | None
    metadata: Any


@dataclass(frozen=True)
class Interest:
    """What a subscriber wants to be told."""

    owner: str | None
    """Whose responses; None: everybody's, which the master sees."""
    shards: Sequence[Shard]
    """Where they lie."""
    is_wanted: Callable[[str, str], bool] = lambda _kind, _model: True
    """Whether an event of this type is told of a response of this model."""
    ids: Sequence[str] = ()
    """If it is about some responses alone: cached ones. The stream ends when all of `ids` and `natives` have ended."""
    natives: Mapping[str, Callable[[], AsyncIterator[NativeStatus]]] = field(default_factory=dict)
    """And native ones, each with what is found out of its status, until it has ended."""


class Subscriber:
    """One subscriber to status events. It can be followed once."""

    def __init__(self, feed: Feed, store: Store, interest: Interest) -> None:
        self._feed = feed
        self._store = store
        self._interest = interest
        self._ranks = dict.fromkeys([*interest.ids, *interest.natives], -1)
        """How far each of the responses that it is about has come, as far as that was told."""
        self._found: list[bytes] = []
        """What is to be told of native responses: a handful of events for each."""
        self._cut = False
        self._places: Mapping[Shard, Place] = {}

    @property
    def heartbeat(self) -> bytes:
        """A comment, and the cursor, so that a quiet subscriber does not fall behind what is kept."""
        return f": keep-alive\nid: {encode_cursor(self._places)}\n\n".encode()

    async def follow(self, since: Mapping[Shard, Place] | None, *, tick_s: float) -> AsyncGenerator[bytes, None]:
        """The frames of a stream of server-sent events; empty bytes at least every `tick_s`.

        It begins behind the places `since`, or with what comes from now on. If it is about some responses, it begins
        with their present status, unless it resumes, and ends when they have ended.

        Raises:
            FeedCut: it can't go on here; what was not told yet is told to whoever resumes
            StoreError
        """
        async with self._feed.follow(self._audiences()) as following:
            self._places = following.places
            watching = [
                asyncio.create_task(self._watch(response_id, states(), following), name="native status")
                for response_id, states in self._interest.natives.items()
            ]
            try:
                async for frames in self._frames(following, since, tick_s):
                    yield frames
            finally:
                for task in watching:
                    task.cancel()
                if watching:
                    await asyncio.wait(watching)

    def _audiences(self) -> list[Audience]:
        interest = self._interest
        if not self._ranks:
            return [Audience(shard, interest.owner or "") for shard in interest.shards]
        # No feed tells of native responses, but its cursor is as good as any.
        named = [Audience(interest.shards[0], response_id=response_id) for response_id in interest.natives]
        return named + [Audience(self._store.feed.shards.of(one), response_id=one) for one in interest.ids]

    async def _frames(
        self, following: Following, since: Mapping[Shard, Place] | None, tick_s: float
    ) -> AsyncGenerator[bytes, None]:
        known = {shard: place for shard, place in (since or {}).items() if shard in following.places}
        following.places.update(known)
        if since is None and self._ranks:
            # No id before the present is told: whoever resumed with it would never be told.
            yield b"retry: %d\n\n" % RETRY_MS
            yield b"".join(await self._present())
        else:
            yield b"retry: %d\nid: %b\n\n" % (RETRY_MS, encode_cursor(following.places).encode())
        caught_up = since is None
        async with aclosing(following.news(known, tick_s=tick_s)) as all_news:
            async for news in all_news:
                frames = self._told(news, following)
                if news.missed_before is not None:
                    frames += await self._present()
                elif not news.entries and not caught_up:
                    caught_up = True
                    await self._pass_over(known)
                frames += self._found
                self._found = []
                yield b"".join(frames)
                if self._ranks and all(map(has_ended, self._ranks.values())):
                    return
                if self._cut:
                    raise FeedCut

    def _told(self, news: News, following: Following) -> list[bytes]:
        frames: list[bytes] = []
        if news.missed_before is not None:
            before = Place(news.missed_before.ms - 1, LAST_NUMBER)
            event = gap_event(encode_cursor({news.shard: news.missed_before}), news.missed_before.ms // 1000)
            cursor = encode_cursor({**following.places, news.shard: before})
            frames.append(_frame(GAP, jsontext.dumps(event), cursor))
        told = filter(self._is_told, news.entries)
        return frames + [self._frame_of(entry, {**following.places, news.shard: entry.place}) for entry in told]

    def _is_told(self, entry: StatusEntry) -> bool:
        if self._ranks:
            # Perhaps its present status was told first, which was newer.
            rank = rank_of(entry.status)
            if rank <= self._ranks[entry.response_id]:
                return False
            self._ranks[entry.response_id] = rank
        return self._interest.is_wanted(kind_of(entry.status), entry.model)

    def _frame_of(self, entry: StatusEntry, places: Mapping[Shard, Place]) -> bytes:
        return _frame(kind_of(entry.status), _data(entry, self._interest.owner is None), encode_cursor(places))

    async def _present(self) -> list[bytes]:
        """The present status of each cached response that was asked for, unless it was told.

        Each has the id that its event has in the feed, and they come in that order. So whoever is cut off among them,
        and resumes, is told the others by the feed.
        """
        ids, of = self._interest.ids, self._store.feed.shards.of
        present = [
            # One that is gone was there when the subscriber came.
            now or StatusEntry(self._places[of(one)], DELETED, one, self._interest.owner or "", "", b"")
            for one, now in zip(ids, await self._store.responses.statuses(ids), strict=True)
        ]
        present.sort(key=lambda now: now.place)
        told = filter(self._is_told, present)
        return [self._frame_of(now, {**self._places, of(now.response_id): now.place}) for now in told]

    async def _pass_over(self, since: Mapping[Shard, Place]) -> None:
        """Note which responses took their present status before the cursor: that was told."""
        ids = self._interest.ids
        for response_id, now in zip(ids, await self._store.responses.statuses(ids), strict=True):
            shard = self._store.feed.shards.of(response_id)
            if now is not None and shard in since and now.place <= since[shard]:
                self._ranks[response_id] = max(self._ranks[response_id], rank_of(now.status))

    async def _watch(self, response_id: str, states: AsyncIterator[NativeStatus], following: Following) -> None:
        """Tell of a native response, as its status is found out."""
        try:
            async for state in states:
                self._ranks[response_id] = rank_of(state.status)
                kind = kind_of(state.status)
                if self._interest.is_wanted(kind, state.model or ""):
                    event = status_event(
                        state.status, response_id, state.at_s, model=state.model, metadata=state.metadata
                    )
                    self._found.append(_frame(kind, jsontext.dumps(event), encode_cursor(following.places)))
                following.changed.set()
        except (PolluxError, StoreError) as error:
            log.info("a native response can't be watched any more: %s", error, extra={"response_id": response_id})
        self._cut = self._cut or not has_ended(self._ranks[response_id])
        following.changed.set()


def _frame(kind: str, data: bytes, cursor: str) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), kind.encode(), data)


@lru_cache(maxsize=4096)
def _data(entry: StatusEntry, owner_shown: bool) -> bytes:  # noqa: FBT001
    """The event as JSON: made once for all who are told."""
    owner = entry.owner if owner_shown else None
    metadata = shown_metadata(entry.metadata)
    at_s = entry.place.ms // 1000
    event = status_event(entry.status, entry.response_id, at_s, model=entry.model, metadata=metadata, owner=owner)
    return jsontext.dumps(event)
