"""Platforms for tests: models of several makers, at the platform's own paths, for whoever shows what is demanded."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.upstreams import RequestHandler

Json = dict[str, Any]
TEXT = "Hello from the cloud."
CLAUDE_ANSWER: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 5},
}
CLAUDE_EVENTS: list[Json] = [
    {"type": "message_start", "message": {**CLAUDE_ANSWER, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in ("Hello ", "from ", "the cloud.")
    ),
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]


def _chat(**choice: Any) -> Json:
    made = {"index": 0, "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [made], "usage": usage}


CHAT_ANSWER = _chat(message={"role": "assistant", "content": TEXT})
CHAT_EVENTS = [{**_chat(delta={"role": "assistant", "content": TEXT}), "object": "chat.completion.chunk"}]


def sse(events: Iterable[Json], *, done: bool = False) -> bytes:
    frames = b"".join(b"event: %b\ndata: %b\n\n" % (_type(event), json.dumps(event).encode()) for event in events)
    return frames + (b"data: [DONE]\n\n" if done else b"")


def _type(event: Json) -> bytes:
    return str(event.get("type", "message")).encode()


def answering(
    kind: Callable[[web.Request], str], streams: Callable[[web.Request, Json], bool]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A provider that answers `claude` or `chat` requests, as JSON or as a stream."""

    async def handler(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        claude = kind(request) == "claude"
        if streams(request, body):
            frames = sse(CLAUDE_EVENTS) if claude else sse(CHAT_EVENTS, done=True)
            return web.Response(body=frames, content_type="text/event-stream")
        return web.json_response(CLAUDE_ANSWER if claude else CHAT_ANSWER)

    return handler


def demanding(authorization: str, handler: RequestHandler) -> RequestHandler:
    """The same provider, for those whose `Authorization` begins so."""

    async def demands(request: web.Request) -> web.StreamResponse:
        if not request.headers.get("Authorization", "").startswith(authorization):
            return web.json_response({"error": {"message": "who are you?"}}, status=401)
        return await handler(request)

    return demands


def google_account(token_url: str) -> Json:
    """An account of a service, with a key of its own, whose tokens are granted at this address."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": "project-1",
        "private_key_id": "k-1",
        "private_key": pem.decode(),
        "client_email": "robot@project-1.example",
        "token_uri": token_url,
    }
