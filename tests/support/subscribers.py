"""Subscribers to status events, as a strict client reads them."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from tests.support.replica import ALICE

ENDS = frozenset(f"response.{status}" for status in ("completed", "failed", "incomplete", "cancelled"))
RANKS = {"response.queued": 0, "response.in_progress": 1, **dict.fromkeys(ENDS, 2), "response.deleted": 3}
"""In which order a response's transitions happen."""
SILENCE_S = 20.0
"""A stream says something every 15 s."""
MISSED = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a patient subscriber takes for an accident."""


@dataclass
class Feed:
    """One stream of `GET /v1/events`, and the last id in it."""

    answer: aiohttp.ClientResponse
    last_id: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """The events as they come. Raises `aiohttp.ClientPayloadError` when the stream is cut."""
        async for fields in self._blocks():
            self.last_id = fields.get("id", self.last_id)
            if "data" not in fields:
                continue
            event = json.loads(fields["data"])
            assert fields["event"] == event["type"]
            assert list(event) == ["id", "object", "created_at", "type", "data"]
            assert event["id"].startswith("evt_")
            self.events.append(event)
            yield event

    async def take(self, count: int) -> list[dict[str, Any]]:
        """The next so many."""
        found: list[dict[str, Any]] = []
        async for event in self:
            found.append(event)
            if len(found) == count:
                break
        assert len(found) == count, found
        return found

    async def rest(self) -> list[dict[str, Any]]:
        """All up to a clean end."""
        return [event async for event in self]

    async def _blocks(self) -> AsyncIterator[dict[str, str]]:
        block: dict[str, str] = {}
        while line := (await self.answer.content.readline()).decode():
            assert line.endswith("\n"), "the stream ended in the middle of a line"
            if line == "\n":
                yield block
                block = {}
            elif not line.startswith(":"):
                name, _, value = line[:-1].partition(": ")
                assert name in ("id", "event", "data", "retry"), line
                block[name] = value
        assert not block, "the stream ended in the middle of a frame"


@asynccontextmanager
async def subscribed(http: aiohttp.ClientSession, query: str = "", last_id: str = "") -> AsyncIterator[Feed]:
    """A subscriber that hears what happens from now on, or behind its last id."""
    async with http.get(f"events{query}", headers=_resuming(last_id)) as answer:
        yield await _opened(answer, last_id)


def _resuming(last_id: str) -> dict[str, str]:
    return {"Last-Event-ID": last_id} if last_id else {}


async def _opened(answer: aiohttp.ClientResponse, last_id: str) -> Feed:
    assert answer.status == 200, await answer.text()
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    feed = Feed(answer, last_id)
    opening = await anext(aiter(feed._blocks()))
    # About some responses, the present comes before the first id.
    has_id = bool(last_id) or "response_id" not in answer.url.query or "id" in opening
    assert opening == {"retry": "2000", **({"id": opening["id"]} if has_id else {})}
    feed.last_id = opening.get("id", last_id)
    return feed


class Patient:
    """A subscriber that comes again whenever its stream breaks, with its last id, at the next replica.

    It is there within `async with`; `events` is all that it was told.
    """

    def __init__(
        self, urls: Callable[[], Sequence[str]], key: str = ALICE, query: str = "", *, hangs_up_after: int = 0
    ) -> None:
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}
        self._query = query
        self._hangs_up_after = hangs_up_after
        """After so many events it breaks the stream off itself; 0: never."""
        self.events: list[dict[str, Any]] = []
        self.last_id = ""
        self.visits: list[str] = []
        """The replicas that it has subscribed at, one after the other."""
        self._tries = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.listen(), name="patient subscriber")
        await self._until(lambda: bool(self.visits), 20, "it has subscribed")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def broke(self) -> BaseException | None:
        """What no accident explains, if it ended by that."""
        return self._task.exception() if self._task and self._task.done() and not self._task.cancelled() else None

    async def has_been_told(self, condition: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 60) -> None:
        """Wait until this is true of all that it was told."""
        await self._until(lambda: condition(self.events), timeout_s, f"{len(self.events)} events are not all")

    async def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        assert self._task is not None
        async with asyncio.timeout(timeout_s):
            while not condition():
                if self._task.done():
                    self._task.result()
                    raise AssertionError(f"the stream has ended, but not {what}")
                await asyncio.sleep(0.02)

    async def listen(self) -> None:
        """Until the stream ends cleanly."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as http:
            while not await self._listen_once(http):
                await asyncio.sleep(random.uniform(0, 0.1))

    async def _listen_once(self, http: aiohttp.ClientSession) -> bool:
        """Whether the stream has ended cleanly."""
        urls = self._urls()
        url = urls[self._tries % len(urls)] if urls else "http://127.0.0.1:9"
        self._tries += 1
        feed: Feed | None = None
        try:
            async with http.get(f"{url}/v1/events{self._query}", headers=_resuming(self.last_id)) as answer:
                if answer.status == 503:
                    assert answer.headers["Retry-After"]
                    await asyncio.sleep(0.2)
                    return False
                feed = await _opened(answer, self.last_id)
                self.last_id = feed.last_id
                self.visits.append(url)
                return await self._note(feed)
        except MISSED:
            return False
        finally:
            if feed is not None:
                self.last_id = feed.last_id

    async def _note(self, feed: Feed) -> bool:
        async for event in feed:
            self.events.append(event)
            if len(feed.events) == self._hangs_up_after:
                return False
        return True


def lives_in(events: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """The types of event of each response, in the order in which they were told."""
    lives: dict[str, list[str]] = defaultdict(list)
    for event in events:
        lives[event["data"]["id"]].append(event["type"])
    return dict(lives)


def faults_of(events: Sequence[dict[str, Any]]) -> list[str]:
    """What a subscriber was told that it should not have been: the same twice, in another order, or two ends."""
    if gaps := [event for event in events if event["type"] not in RANKS]:
        return [f"told of gaps: {gaps}"]
    found = []
    if len({event["id"] for event in events}) != len(events):
        found.append("an event was told twice")
    for response_id, kinds in lives_in(events).items():
        ranks = [RANKS[kind] for kind in kinds]
        if ranks != sorted(set(ranks)):
            found.append(f"{response_id} was told as {kinds}")
    return found
