"""Nesting: detects JSON that orjson can read, but is nested too deeply to be written again."""

from __future__ import annotations

from typing import Any

import orjson

from server.protocol import jsontext

_HARMLESS_BRACKETS = 200
_MARGIN = 16
"""How many levels Pollux may wrap around a value: an item is put into a response, and that into an event."""


def is_too_deep(raw: bytes, value: Any) -> bool:
    """Whether a value, parsed from `raw`, is nested too deeply to be encoded: orjson reads 1024 levels, writes 254."""
    # A short text can't be too deep, since each level takes two bytes.
    if len(raw) <= 2 * _HARMLESS_BRACKETS or raw.count(b"{") + raw.count(b"[") <= _HARMLESS_BRACKETS:
        return False
    for _ in range(_MARGIN):
        value = [value]
    try:
        jsontext.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False
