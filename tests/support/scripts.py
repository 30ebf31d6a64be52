"""Providers of a few lines: what each call is answered, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import orjson
from aiohttp import web

from tests.support.upstreams import RequestHandler

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]

RAW_ID = "resp_0badc0de0badc0de%d"


def event(kind: str, **fields: Any) -> bytes:
    """One event as OpenAI sends it."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def lifecycle(kind: str, status: str, response_id: str = RAW_ID % 0, **fields: Any) -> bytes:
    return event(kind, response={"id": response_id, "object": "response", "status": status, **fields})


KEEPALIVE = event("keepalive", sequence_number=0)
CREATED = lifecycle("response.created", "in_progress")
ITEM = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
TEXT = "Gladly."
DONE_ITEM = {**ITEM, "status": "completed", "content": [{"type": "output_text", "text": TEXT, "annotations": []}]}
OUTPUT = (
    event("response.output_item.added", output_index=0, item=ITEM),
    event("response.output_text.delta", output_index=0, content_index=0, item_id="msg_1", delta=TEXT),
    event("response.output_item.done", output_index=0, item=DONE_ITEM),
)
COMPLETED = lifecycle("response.completed", "completed", output=[DONE_ITEM])
WELL = (CREATED, *OUTPUT, COMPLETED)


def failed(**error: Any) -> bytes:
    return lifecycle("response.failed", "failed", error=error, output=[])


def streaming(*frames: bytes, label: str | None = "text/event-stream", cut: bool = False) -> Reply:
    """A reply of these bytes, under any label or none; `cut`: the connection breaks behind them."""

    async def reply(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        if label is not None:
            answer.headers["Content-Type"] = label
        await answer.prepare(request)
        for frame in frames:
            await answer.write(frame)
        if cut:
            assert request.transport is not None
            request.transport.close()
        return answer

    return reply


def plain(status: int, body: Any, *, label: str = "application/json", **headers: str) -> Reply:
    """A reply that is no stream."""

    async def reply(_request: web.Request) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=raw, content_type=label, headers=named)

    return reply


def answering(replies: Sequence[Reply], *, then: Reply | None = None) -> RequestHandler:
    """A handler for `running_script`: the first call gets the first reply …, all further ones `then`, or the last."""
    numbers = count()

    async def handler(request: web.Request) -> web.StreamResponse:
        number = next(numbers)
        reply = replies[number] if number < len(replies) else then or replies[-1]
        return await reply(request)

    return handler
