"""Changing single strings of a JSON text, and none of its other bytes."""

from __future__ import annotations

from typing import Any

import orjson

from server.protocol import jsontext

SHORTEST_DISTINCT = 8
"""A string shorter than this may occur by chance: bytes are not searched for it."""


def parsed(raw: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The object, and its text as every client's parser takes it. None where it is no object."""
    try:
        body, text = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return None
    return (body, text) if isinstance(body, dict) else None


def put(raw: bytes, body: dict[str, Any], holder: dict[str, Any], name: str, new: str) -> bytes:
    """Put a string in its place in the body, and in its bytes: there by search, where that can hit nothing else."""
    old, holder[name] = holder[name], new
    if old == new:
        return raw
    encoded = jsontext.dumps(old)
    if len(old) >= SHORTEST_DISTINCT and encoded in raw:
        return raw.replace(encoded, jsontext.dumps(new))
    return jsontext.dumps(body)
