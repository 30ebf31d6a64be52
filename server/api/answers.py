"""JSON answers: the headers that all of them share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import orjson
from aiohttp import web

from server.api.context import context_of
from server.api.query import Wait
from server.protocol import jsontext
from server.protocol.lifecycle import UNFINISHED


def response_answer(
    request: web.Request,
    body: bytes,
    *,
    etag: str,
    status: str,
    wait: Wait = Wait(),  # noqa: B008
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A Response object, or a 304 if the client asked for one and already has this state."""
    made = {"ETag": etag, **wait.headers, **(headers or {})}
    if request.method == "GET":
        made["Cache-Control"] = "private, no-cache"
    if status in UNFINISHED:
        made["openai-poll-after-ms"] = str(context_of(request).config.pollux.openai_poll_after_ms)
    if wait.quiet and wait.has(etag):
        return web.Response(status=304, headers=made)
    return web.Response(body=body, content_type="application/json", headers=made)


def json_answer(request: web.Request, value: object) -> web.Response:
    """An answer with any object that is not a Response."""
    headers = {"Cache-Control": "private, no-cache"} if request.method == "GET" else {}
    return web.Response(body=jsontext.dumps(value), content_type="application/json", headers=headers)


_TOLD_ANEW = re.compile(rb'"(?:previous_response_id|encrypted_content)"\s*:\s*"(?:[^"\\]++|\\.)*+"')
"""The fields that a provider may encrypt anew for each answer.

Text inside a JSON string can't match, because its quotes are escaped.
"""


def body_etag(body: bytes) -> str:
    """The entity tag of a provider's object: a hash of its bytes, without the fields that differ in every answer."""
    return f'"{hashlib.sha256(_TOLD_ANEW.sub(b"", body)).hexdigest()[:32]}"'


def status_in(body: bytes) -> str:
    """The status of a Response object; empty if the body is something else."""
    try:
        status = jsontext.loads(body).get("status")
    except (orjson.JSONDecodeError, AttributeError):
        return ""
    return status if isinstance(status, str) else ""
