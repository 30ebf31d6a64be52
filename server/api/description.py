"""GET /openapi.json: what this API is, made from the table that serves it."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache
from importlib import import_module
from typing import NamedTuple

from aiohttp import web


class _Described(NamedTuple):
    body: bytes
    etag: str


async def show_description(request: web.Request) -> web.StreamResponse:
    """The description of this API in OpenAPI 3.1. Everybody may have it: it is the same for all, and holds no data."""
    # In a thread, because the first time it takes some hundred milliseconds.
    found = await asyncio.to_thread(_described)
    headers = {"ETag": found.etag, "Cache-Control": "no-cache"}
    if found.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.body, content_type="application/json", headers=headers)


@cache
def _described() -> _Described:
    # Loaded only now: the models that it needs would cost each start more than all else that the API is made of.
    body: bytes = import_module("server.api.openapi.document").as_json()
    return _Described(body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
