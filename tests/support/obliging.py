"""An upstream that takes whatever it is sent and answers well at once: what then goes wrong is ours."""

from __future__ import annotations

from itertools import count
from typing import Any

import orjson
from aiohttp import web

from tests.support.upstreams import RequestHandler

RAW_ID = "resp_0123456789abcdef%d"
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Gladly.", "annotations": []}],
}


def obliging() -> RequestHandler:
    """A handler for `running_script`. Each response has an id of its own."""
    numbers = count(1)

    async def oblige(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = orjson.loads(raw) if request.method == "POST" and raw else {}
        asked_for = request.path.partition("/responses/")[2].split("/")[0]
        response = _response(asked_for or RAW_ID % next(numbers), body)
        if request.method == "DELETE":
            return web.json_response({"id": response["id"], "object": "response", "deleted": True})
        if request.path.endswith("/input_items"):
            return web.json_response({"object": "list", "data": [], "first_id": None, "last_id": None})
        if body.get("stream") is True or request.query.get("stream") == "true":
            return await _stream(request, response)
        return web.json_response(body=orjson.dumps(response))

    return oblige


def _response(response_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "response",
        "status": "completed",
        "model": "obliging-1",
        "background": body.get("background"),
        "previous_response_id": body.get("previous_response_id"),
        "output": [MESSAGE],
    }


async def _stream(request: web.Request, response: dict[str, Any]) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    begun = {**response, "status": "in_progress", "output": []}
    for event in (
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE},
        {"type": "response.completed", "response": response},
    ):
        await answer.write(b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event)))
    return answer
