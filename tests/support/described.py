"""Holds what replicas of this process answer against what `/openapi.json` says of it, in every test.

Each answer has a status and a type that its operation names, and a body, or events, that fit their model; objects of
Pollux's own have no key that is described nowhere. And a body of a request that was accepted fits its model too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, ValidationError

from server.api import outflow
from server.api.middleware import guard
from server.api.models.base import Open
from server.api.models.named import MODELS
from server.api.openapi.document import document
from server.api.operation import Handler, requested_of
from server.process import app
from server.protocol import jsontext
from server.protocol.sse import DONE

UNREAD = frozenset({403, 408, 414, 417, 426, 431, 503})
"""With what any operation can refuse a request that it has not looked at; the description says so once for all."""
MOST_OF_A_KIND = 3
"""How many events of a type are looked at in one stream: its hundreds of deltas are all alike."""
_FRAMES = web.RequestKey("frames", bytearray)


@dataclass(frozen=True)
class Described:
    """An operation, as the document has it: the model of each type by status, and that of the request."""

    answers: dict[str, dict[str, type[BaseModel] | None]]
    body: type[BaseModel] | None

    def at(self, status: int) -> dict[str, type[BaseModel] | None] | None:
        return self.answers.get(str(status), self.answers.get(f"{status // 100}XX"))


@cache
def operations() -> dict[tuple[str, str], Described]:
    """By method and path, without a prefix."""
    return {
        (method.upper(), path.removeprefix("/v1")): _described(operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }


def _described(operation: dict[str, Any]) -> Described:
    answers = {
        status: {media: _model(content["schema"]) for media, content in answer.get("content", {}).items()}
        for status, answer in operation["responses"].items()
    }
    body = operation.get("requestBody")
    return Described(answers, _model(body["content"]["application/json"]["schema"]) if body else None)


def _model(schema: dict[str, Any]) -> type[BaseModel] | None:
    schema = schema.get("properties", {}).get("data", {}).get("contentSchema", schema)
    return MODELS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else None


@dataclass
class Watch:
    """What was answered otherwise than it is described."""

    complaints: list[str] = field(default_factory=list)

    def look(self, request: web.Request, answer: web.StreamResponse) -> None:
        try:
            _check(request, answer)
        except (ValidationError, AssertionError, KeyError, ValueError) as error:
            self.complaints.append(f"{request.method} {request.path_qs} -> {answer.status}: {error}"[:1000])


def _check(request: web.Request, answer: web.StreamResponse) -> None:
    asked = requested_of(request)
    if request.method in ("HEAD", "OPTIONS") or answer.status == 101:
        return
    body = answer.body if isinstance(answer, web.Response) else None
    described = operations().get((request.method, asked.route))
    if described is None:
        assert answer.status >= 400, f"{asked.route} is described nowhere"
        _fits(MODELS["ErrorResponse"], body)
        return
    media = described.at(answer.status)
    if media is None:
        assert answer.status in UNREAD, "this status is not described"
        media = {"application/json": MODELS["ErrorResponse"]}
    if answer.status < 300 and described.body is not None and "Content-Encoding" not in request.headers:
        _fits(described.body, _asked(request), told=False)
    if _FRAMES in request:
        _check_sent(media[answer.content_type], bytes(request[_FRAMES]))
    elif body:
        assert answer.content_type in media, f"the type {answer.content_type} is not described"
        _fits(media[answer.content_type], body)


def _asked(request: web.Request) -> bytes:
    """The body as it is read: a null counts as left out, and a model in the path goes before the body's."""
    body = request._read_bytes or b""
    given = jsontext.loads(body) if body.strip() else {}
    made = {name: value for name, value in given.items() if value is not None}
    return jsontext.dumps({**made, **({"model": model} if (model := request.match_info.get("model")) else {})})


def _check_sent(model: type[BaseModel] | None, sent: bytes) -> None:
    """Check events, or JSON that was held, with white space before it. Either may have been broken off."""
    if sent.lstrip().startswith(b"{"):
        _fits(model, sent)
        return
    whole, _, _ = sent.rpartition(b"\n\n")
    seen: Counter[bytes] = Counter()
    for frame in whole.split(b"\n\n"):
        kind = frame.partition(b"\n")[0]
        seen[kind] += 1
        if seen[kind] > MOST_OF_A_KIND:
            continue
        lines = dict(line.partition(b": ")[::2] for line in frame.split(b"\n"))
        if b"data" in lines and frame + b"\n\n" != DONE:
            _fits(model, lines[b"data"])


def _fits(model: type[BaseModel] | None, body: Any, *, told: bool = True) -> None:
    if model is None or _is_cut_down(body):
        return
    try:
        found = model.model_validate_json(body, extra="allow")
    except ValidationError as error:
        if error.errors()[0]["type"] != "json_invalid":
            raise
        # Clients' parsers take more than pydantic's does.
        found = model.model_validate(jsontext.loads(body), extra="allow")
    if told:
        _has_no_more(found)


def _is_cut_down(body: bytes) -> bool:
    """Whether this is a provider's response in the few words that a test needs. Real ones and ours have this field."""
    return b'"resp_' in body and b'"created_at"' not in body


def _has_no_more(found: Any) -> None:
    """Refuse keys that nothing describes, but for those of providers."""
    if isinstance(found, list):
        for one in found:
            _has_no_more(one)
    if isinstance(found, BaseModel) and not isinstance(found, Open):
        assert not found.model_extra, f"{type(found).__name__} has more: {[*found.model_extra]}"
        for one in found.__dict__.values():
            _has_no_more(one)


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch the replicas that are made meanwhile."""
    watch, write = Watch(), outflow.Outflow.write

    @web.middleware
    async def seen(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await guard(request, handler)
        watch.look(request, answer)
        return answer

    async def noted(out: outflow.Outflow, data: bytes) -> None:
        out._request.setdefault(_FRAMES, bytearray()).extend(data)
        await write(out, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "guard", seen)
        patch.setattr(outflow.Outflow, "write", noted)
        yield watch
