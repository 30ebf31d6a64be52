"""One customer of the soak: asks replicas in turns, says what surprised it, and how long answers took."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tests.support.replica import CACHED

UNFINISHED = ("queued", "in_progress")
MOST_COMPLAINTS = 20


class Surprise(Exception):
    """An answer that a healthy Pollux does not give."""


@dataclass
class Notes:
    """What all customers have found."""

    timings: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Of each kind of request: when it began (on the clock `time.monotonic`), and how many seconds it took."""
    acts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    complaints: list[str] = field(default_factory=list)
    """The first ones, in words."""
    complained: int = 0

    def took(self, kind: str, began: float) -> None:
        self.timings[kind].append((began, time.monotonic() - began))

    def complain(self, what: str) -> None:
        self.complained += 1
        if len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(what)


@dataclass
class Customer:
    """Each of its requests may go to another replica, as behind a load balancer."""

    http: aiohttp.ClientSession
    urls: Sequence[str]
    key: str
    chance: random.Random
    notes: Notes
    receiver: str
    """Where webhooks are taken."""

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        expect: Sequence[int] = (200,),
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """The answer, as JSON where it is that, and its headers.

        Raises:
            Surprise: its status is none of `expect`
        """
        async with self.opened(method, path, body, expect=expect, key=key, headers=headers) as answer:
            raw = await answer.read()
        is_json = answer.content_type == "application/json" and raw
        return orjson.loads(raw) if is_json else raw.decode(), answer.headers

    @asynccontextmanager
    async def opened(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        expect: Sequence[int] = (200,),
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that has begun; at the end of the block its connection is closed unless it was read to the end."""
        given = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        given |= headers or {}
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        url = self.chance.choice(self.urls) + path
        async with self.http.request(method, url, data=data, headers=given) as answer:
            if answer.status not in expect:
                text = (await answer.text())[:300]
                raise Surprise(f"{method} {path} was answered with {answer.status}: {text}")
            yield answer

    async def start_stream(self, directives: str) -> str:
        """A background response that is streamed, and left at once; its id."""
        async with self.opened("POST", "/v1/responses", self.body(directives, stream=True)) as answer:
            (created,) = await self.events(answer, 1)
        response_id: str = created["response"]["id"]
        return response_id

    def text(self, directives: str = "") -> str:
        """An input like no other."""
        return f"soak {self.chance.getrandbits(64):016x} {directives}"

    async def create(self, directives: str = "", model: str = CACHED, **body: Any) -> str:
        """A background response; its id."""
        began = time.monotonic()
        made, _ = await self.ask("POST", "/v1/responses", self.body(directives, model, **body))
        if model == CACHED:
            self.notes.took("create", began)
        response_id: str = made["id"]
        return response_id

    def body(self, directives: str, model: str = CACHED, **fields: Any) -> dict[str, Any]:
        return {"model": model, "input": self.text(directives), "background": True, **fields}

    async def ended(self, response_id: str, status: str = "completed") -> dict[str, Any]:
        """The response once it is over, by long waits.

        Raises:
            Surprise: it has ended otherwise
        """
        while True:
            response, _ = await self.ask("GET", f"/v1/responses/{response_id}?wait=20")
            if response["status"] not in UNFINISHED:
                break
        if response["status"] != status:
            raise Surprise(f"{response_id} is {response['status']}, not {status}: {response['error']}")
        return dict(response)

    async def events(self, answer: aiohttp.ClientResponse, most: int = 0) -> list[dict[str, Any]]:
        """The events of a stream until it ends, or the first `most` of them."""
        found: list[dict[str, Any]] = []
        async for line in answer.content:
            if line.startswith(b"data: {"):
                found.append(orjson.loads(line[6:]))
                if len(found) == most:
                    break
        return found
