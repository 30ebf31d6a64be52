"""Replaces single strings in a JSON text, and leaves its other bytes as they are."""

from __future__ import annotations

import re
from typing import Any

import orjson

from server.protocol import jsontext

SHORTEST_DISTINCT = 8
"""A shorter string may occur elsewhere by chance, so it is not replaced by a search in the bytes."""

_NEEDLESS = re.compile(rb"\\(?:u00[2-7]|/)")
"""An escape of a character that needs none. Ids consist of such characters."""


def parsed(raw: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The object, and its text in a form that every client's parser accepts; None if the text is not an object."""
    try:
        body, text = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return None
    return (body, text) if isinstance(body, dict) else None


def put(raw: bytes, body: dict[str, Any], holder: dict[str, Any], name: str, new: str) -> bytes:
    """Set a string in the object and in its bytes.

    The bytes are searched for the old string if it is long enough to be unique; otherwise the body is encoded anew.
    """
    old, holder[name] = holder[name], new
    if old == new:
        return raw
    encoded = jsontext.dumps(old)
    if len(old) >= SHORTEST_DISTINCT and encoded in raw:
        written = raw.replace(encoded, jsontext.dumps(new))
        # It may be written with escapes where it is to be set, and plainly elsewhere.
        if b"\\" not in raw or not _NEEDLESS.search(raw) or jsontext.loads(written) == body:
            return written
    return jsontext.dumps(body)
