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
from server.feed import Audience, Feed, FeedCut, Following, News, event_about
from server.protocol import jsontext
from server.protocol.sse import encode_frame
from server.protocol.status_events import (
    DELETED,
    GAP,
    gap_event,
    has_ended,
    kind_of,
    rank_of,
    status_event,
)
from storage import Place, Shard, StatusEntry, Store, StoreError, parse_place

RETRY_MS = 2000
"""How long a client waits before it connects anew: the stream asks it to."""

LAST_NUMBER = 10**15 - 1
"""Behind all entries of one millisecond."""
LARGE_BYTES = 2048
"""Of metadata. OpenAI allows some 10 KB, few send as much."""

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
    may_be_told: Callable[[str], bool] = lambda _model: True
    """Whether the subscriber may be told of cached responses of this model. Whom `natives` names, it may."""
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
        self._gone: list[str] = []
        """Responses that were gone when it came back. It is over for them once the feed is read to its end."""
        self._cut = False
        self._places: Mapping[Shard, Place] = {}

    @property
    def heartbeat(self) -> bytes:
        """A comment, and the cursor, so that a quiet subscriber does not fall behind what is kept."""
        return f": keep-alive\nid: {encode_cursor(self._places)}\n\n".encode()

    async def follow(self, since: Mapping[Shard, Place] | None, *, tick_s: float) -> AsyncGenerator[bytes, None]:
        """The frames of a stream of server-sent events; empty bytes where nothing was told for `tick_s`.

        It begins behind the places `since`, or with what comes from now on. If it is about some responses, it begins
        with their present status where `since` does not say that this was told, and ends when they have ended.

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
        opening = await self._opening(known)
        over, quiet = self._is_over(), True
        if over:
            opening += self._found  # nothing comes after it
        yield b"".join(opening)
        if over:
            return
        async with aclosing(following.news(known, tick_s=tick_s)) as all_news:
            async for news in all_news:
                frames = await self._gap(news.shard, news.missed_before) if news.missed_before else []
                frames += self._told(news)
                if not news.entries and news.missed_before is None:
                    # All that lies behind the cursor is told by now.
                    self._end(self._gone)
                frames += self._found
                self._found = []
                # Not after the yield: meanwhile more may be found, which is to be told before the end.
                over = self._is_over()
                if frames or quiet:
                    yield b"".join(frames)
                quiet = not frames
                if over:
                    return
                if self._cut:
                    raise FeedCut

    def _is_over(self) -> bool:
        return bool(self._ranks) and all(map(has_ended, self._ranks.values()))

    def _end(self, ids: Sequence[str]) -> None:
        for response_id in ids:
            self._ranks[response_id] = rank_of(DELETED)

    async def _opening(self, known: Mapping[Shard, Place]) -> list[bytes]:
        """What comes first: the present status of each cached response that it is about.

        Behind a place in `known` the feed itself goes on about a response.
        """
        begins: dict[str, StatusEntry | None] = {}
        for response_id, found in (await self._statuses()).items():
            place = known.get(self._shard_of(response_id))
            if place is None:
                begins[response_id] = found
            elif found is None:
                # If the feed is not about to tell that it was deleted, it told so before.
                self._gone.append(response_id)
            elif found.place <= place:
                self._ranks[response_id] = rank_of(found.status)
        told = self._present(begins)
        if not told:
            return [b"retry: %d\nid: %b\n\n" % (RETRY_MS, encode_cursor(self._places).encode())]
        # No id before the present is told: whoever resumed with it would never be told.
        return [b"retry: %d\n\n" % RETRY_MS, *self._in_order(told)]

    def _in_order(self, entries: Sequence[StatusEntry]) -> list[bytes]:
        """Frames with the ids that the events have in the feed, in that order.

        So whoever is cut off among them, and resumes, is told the others by the feed.
        """
        entries = sorted(entries, key=lambda entry: entry.place)
        firsts = {self._shard_of(entry.response_id): _before(entry.place) for entry in reversed(entries)}
        places, frames = {**self._places, **firsts}, []
        for entry in entries:
            places[self._shard_of(entry.response_id)] = entry.place
            frames.append(self._frame_of(entry, places))
        return frames

    async def _gap(self, shard: Shard, oldest: Place) -> list[bytes]:
        """That events were dropped unseen, and what has become of the responses that it is about meanwhile."""
        event = gap_event(encode_cursor({shard: oldest}), oldest.ms // 1000)
        gap = _frame(GAP, jsontext.dumps(event), encode_cursor({**self._places, shard: _before(oldest)}))
        # Without ids: whoever is cut off among them gets the gap again.
        return [gap, *(self._frame_of(entry, None) for entry in self._present(await self._statuses()))]

    def _told(self, news: News) -> list[bytes]:
        told = filter(self._is_told, news.entries)
        return [self._frame_of(entry, {**self._places, news.shard: entry.place}) for entry in told]

    def _is_told(self, entry: StatusEntry) -> bool:
        if self._ranks:
            if self._interest.owner not in (None, entry.owner):
                return False
            # Perhaps its present status was told first, which was newer.
            rank = rank_of(entry.status)
            if rank <= self._ranks[entry.response_id]:
                return False
            self._ranks[entry.response_id] = rank
        interest = self._interest
        # Of one that is gone no model is known.
        allowed = not entry.model or interest.may_be_told(entry.model)
        return allowed and interest.is_wanted(kind_of(entry.status), entry.model)

    def _frame_of(self, entry: StatusEntry, places: Mapping[Shard, Place] | None) -> bytes:
        cursor = encode_cursor(places) if places else ""
        return _frame(kind_of(entry.status), _data(entry, self._interest.owner is None), cursor)

    async def _statuses(self) -> dict[str, StatusEntry | None]:
        """The last change of status of each cached response that it is about; None where it is gone."""
        ids, owner = self._interest.ids, self._interest.owner
        found = zip(ids, await self._store.responses.statuses(ids), strict=True)
        return {one: entry if entry and owner in (None, entry.owner) else None for one, entry in found}

    def _present(self, statuses: Mapping[str, StatusEntry | None]) -> list[StatusEntry]:
        """Which of these are to be told. One that is gone was there when the subscriber came."""
        owner = self._interest.owner or ""
        entries = [
            found or StatusEntry(self._places[self._shard_of(one)], DELETED, one, owner, "", b"")
            for one, found in statuses.items()
        ]
        return list(filter(self._is_told, entries))

    def _shard_of(self, response_id: str) -> Shard:
        return self._store.feed.shards.of(response_id)

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
        except Exception:
            log.exception("watching a native response broke", extra={"response_id": response_id})
        self._cut = self._cut or not has_ended(self._ranks[response_id])
        following.changed.set()


def _before(place: Place) -> Place:
    return Place(place.ms - 1, LAST_NUMBER)


def _frame(kind: str, data: bytes, cursor: str = "") -> bytes:
    frame = encode_frame(kind, data)
    return b"id: %b\n%b" % (cursor.encode(), frame) if cursor else frame


def _data(entry: StatusEntry, owner_shown: bool) -> bytes:  # noqa: FBT001
    """The event as JSON: made once for all who are told, unless it is so large that many of them would be too much."""
    make = _made if len(entry.metadata) <= LARGE_BYTES else _made.__wrapped__
    return make(entry, owner_shown)


@lru_cache(maxsize=1024)  # those who are told of an event are told at about the same time
def _made(entry: StatusEntry, owner_shown: bool) -> bytes:  # noqa: FBT001
    made = jsontext.dumps(event_about(entry, owner_shown=owner_shown))
    # A copy, because what orjson returns occupies the whole buffer that it was written to, four kilobytes.
    return memoryview(made).tobytes()
