"""What can be done with an input without an answer being made: counting its tokens, and compacting it."""

import time
from base64 import urlsafe_b64encode

from aiohttp import web

from server.simulator.answering import json_response
from server.simulator.context import SIMULATOR
from server.simulator.intake import check_presence, check_types, parse_object
from server.simulator.reply import Reply, given_tokens
from server.simulator.responses.creation import TYPES, begin
from server.simulator.turn import Json, derived_id


async def count_tokens(request: web.Request) -> web.Response:
    reply, _ = await _begun(request)
    return json_response({"object": "response.input_tokens", "input_tokens": given_tokens(reply)})


async def compact(request: web.Request) -> web.Response:
    """The user's messages, and one item that stands for all the rest."""
    reply, items = await _begun(request, "model")
    users = [item for item in items if item.get("role") == "user"]
    compacted = {
        "id": derived_id(reply.id, "cmp", "compaction"),
        "type": "compaction",
        "encrypted_content": f"gAAAAA{urlsafe_b64encode(reply.text.encode()).decode()}",
    }
    given = given_tokens(reply)
    usage = {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + 7,
    }
    return json_response(
        {
            "id": reply.id,
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [*users, compacted],
            "usage": usage,
        }
    )


async def _begun(request: web.Request, *needed: str) -> tuple[Reply, list[Json]]:
    body = parse_object(await request.read())
    check_types(body, TYPES)
    check_presence(body, needed)
    body = {"input": [], **{name: value for name, value in body.items() if value is not None}}
    return await begin(request.app[SIMULATOR], body)
