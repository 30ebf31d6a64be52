"""A receiver of webhooks, as steerable as a bad one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.support.waiting import wait_until

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(self.body)
        return event


async def takes_it(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


def answers(status: int, **headers: str) -> Behaviour:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


@dataclass
class Receiver:
    url: str = ""
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    """By path; everything else is taken."""
    received: list[Received] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, headers, await request.read()))
        return await self.behaviour.get(request.path, takes_it)(request)

    def events(self, path: str | None = None) -> list[dict[str, Any]]:
        return [one.event for one in self.received if path in (None, one.path)]

    def count(self, path: str) -> int:
        return Counter(one.path for one in self.received)[path]

    async def receive(self, count: int, path: str = "/", timeout_s: float = 10) -> list[dict[str, Any]]:
        """All that came to a path, once there are so many."""
        await wait_until(lambda: self.count(path) >= count, timeout_s=timeout_s, what=f"{count} webhooks at {path}")
        return self.events(path)


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = site.name
    try:
        yield receiver
    finally:
        await runner.cleanup()
