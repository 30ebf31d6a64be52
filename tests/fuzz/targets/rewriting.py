"""Answers of a provider: its ids and our secrets never reach a client, and all else stays as it was."""

from __future__ import annotations

from typing import Any

import orjson

from server.errors import UpstreamUnavailable
from server.protocol import jsontext
from server.protocol.ids import decode_composite
from server.protocol.redaction import SHORTEST_SECRET, Secrets
from server.protocol.sse import ServerEvent, SseParser
from server.upstream.affinity import Marker
from server.upstream.rewrite import Rewriter
from tests.fuzz.material import Material
from tests.support.deployments import deployment

RAW = "resp_0a1b2c3d4e5f"
SECRET = "tok/en&<é>+9-8_7"
_KEYS = (
    *("id", "response_id", "previous_response_id", "response", "object", "error", "message", "status", "output"),
    *("type", "item", "encrypted_content", "data", "tools", "server_url", "x"),
)
_WORDS = (RAW, RAW, "resp_1", "short", "response", "list", "error", "gAAAAAB", f"No response {RAW} here", SECRET)


def fuzz(data: bytes) -> None:
    material = Material(data)
    # A deployment with `fill_missing`, and an owner whose values are marked, take other ways through the code.
    filled, marking, known = (material.number(4) == 0 for _ in range(3))
    rewriter = Rewriter(
        deployment("d", fill_missing=filled),
        Marker("d", "alice", b"s" * 32, marking),
        subject="litellm_poll_1" if known else "",
        secrets=Secrets({"tools": [{"type": "mcp", "headers": {"x": SECRET}}]}),
    )
    raw = _nested(material, material.json(_KEYS, _WORDS))
    streamed = not material.number(2)
    try:
        if not streamed:
            made = rewriter.json(raw)
        else:
            frame = b"event: e\ndata: %b\n\n" % raw.replace(b"\r", b"").replace(b"\n", b"")
            [event] = SseParser().feed(frame)
            made = rewriter.event(ServerEvent(event.name, event.data, event.raw))
            if made:
                [event] = SseParser().feed(made)
                made = event.data
    except UpstreamUnavailable:
        return  # it names a response by an id that no URL could carry
    _check(made, "response" if streamed else "")


def _nested(material: Material, raw: bytes) -> bytes:
    """Now and then a JSON text that is nested so deeply that it can be read, but not written."""
    depth = material.pick((0, 0, 0, 0, 200, 254, 300, 1000, 2000))
    return b'{"x":%b%b,"y":%b' % (b"[" * depth, b"]" * depth, raw + b"}") if depth else raw


def _check(made: bytes, place: str) -> None:
    """No secret can be read out of it, nor an id where the response has its own: at this place."""
    try:
        value = jsontext.mended(made)[0]
    except orjson.JSONDecodeError:
        assert SECRET.encode() not in made
        return
    assert not any(SECRET in text for text in _texts(value))
    if not isinstance(value, dict):
        return
    response = value.get(place) if place else value
    if isinstance(response, dict) and response.get("object") != "list":
        for name in ("id", "previous_response_id"):
            said = response.get(name)
            assert not isinstance(said, str) or said in ("", "litellm_poll_1") or decode_composite(said), said


def _texts(value: Any) -> list[str]:
    found, waiting = list[str](), [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            found.append(value)
    return found


assert len(SECRET) >= SHORTEST_SECRET
