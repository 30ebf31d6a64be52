"""Servers that grant tokens, and providers that let in only who shows one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from tests.support.upstreams import SeenRequest, Upstream, running_script


@dataclass
class Granting:
    """A server of tokens, `token-1`, `token-2` and so on, and what it was asked."""

    url: str = ""
    lifetime_s: float = 3600
    refuses: dict[str, Any] | None = None
    """What it refuses with, as long as it does."""
    asked: list[SeenRequest] = field(default_factory=list)

    @property
    def forms(self) -> list[dict[str, str]]:
        return [{name: values[0] for name, values in parse_qs(one.body.decode()).items()} for one in self.asked]


@asynccontextmanager
async def running_granting(**given: Any) -> AsyncIterator[Granting]:
    granting = Granting(**given)

    async def handler(_request: web.Request) -> web.StreamResponse:
        if granting.refuses is not None:
            return web.json_response(granting.refuses, status=401)
        token = {"access_token": f"token-{len(granting.asked)}", "token_type": "Bearer"}
        return web.json_response({**token, "expires_in": granting.lifetime_s})

    async with running_script(handler) as server:
        granting.url, granting.asked = server.base_url.removesuffix("/v1"), server.requests
        yield granting


def shown_to(upstream: Upstream) -> list[str]:
    """What each request to a provider showed."""
    return [request.headers.get("Authorization", "") for request in upstream.requests]
