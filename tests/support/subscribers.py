"""Subscribers to status events, as a strict client reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp


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
    """A subscriber that hears what happens from now on."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with http.get(f"events{query}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        feed = Feed(answer, last_id)
        opening = await anext(aiter(feed._blocks()))
        assert opening == {"retry": "2000", "id": opening["id"]}
        feed.last_id = opening["id"]
        yield feed
