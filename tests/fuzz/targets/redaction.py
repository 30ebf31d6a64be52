"""Secrets of tools: whatever a request has for tools, they are shown without them, and found where they are echoed."""

from __future__ import annotations

import json
from typing import Any

from server.protocol import jsontext
from server.protocol.redaction import SHORTEST_SECRET, Secrets, shown_tools
from tests.fuzz.material import Material

_KEYS = (
    *("type", "server_url", "headers", "authorization", "token", "parameters", "domain_secrets", "name", "value"),
    *("api-key", "tools", "network_policy", "container", "format", "my_secret"),
)
_WORDS = (
    *("mcp", "function", "https://user:pass-word@h.example/path/secret?key=12345678#x", "https://[", "https://[::1]/p"),
    *("Bearer abcdefgh12", "https://\u2100.example/", "http://a]b", "//x", "https://h:port/", "12345678"),
    *("é😀é😀é😀é😀",),
)


def fuzz(data: bytes) -> None:
    material = Material(data)
    tools = [material.value(_KEYS, _WORDS) for _ in material.times(4)]
    body: dict[str, Any] = {"tools": tools, "input": [{"tools": [material.value(_KEYS, _WORDS)]}, "x", None]}
    secrets = Secrets(body)
    shown = shown_tools(tools)
    assert shown_tools(shown) == shown
    for echo in (jsontext.dumps, _by_python, _by_php, _by_go):
        told = secrets.hidden_in(echo({"message": [f"bad: {text}!" for text in secrets._texts]}))
        for message in jsontext.loads(told)["message"]:
            assert not any(text in message for text in secrets._texts if len(text) >= SHORTEST_SECRET)
    secrets.hidden_in_text("x")


def _by_python(value: Any) -> bytes:
    return json.dumps(value).encode()


def _by_php(value: Any) -> bytes:
    return json.dumps(value).replace("/", "\\/").encode()


def _by_go(value: Any) -> bytes:
    text = jsontext.dumps(value).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()
