"""Nesting: JSON that can be read but not written again."""

from __future__ import annotations

from typing import Any

import orjson

from server.protocol import jsontext

_HARMLESS_BRACKETS = 200
_MARGIN = 16
"""Levels that Pollux may put around a value of others: an item lies in a response, and that in an event."""


def is_too_deep(raw: bytes, value: Any) -> bool:
    """Whether a value, parsed from `raw`, is nested too deeply to be encoded: orjson reads 1024 levels, writes 254."""
    # What is short can't be deep: each level takes two bytes.
    if len(raw) <= 2 * _HARMLESS_BRACKETS or raw.count(b"{") + raw.count(b"[") <= _HARMLESS_BRACKETS:
        return False
    for _ in range(_MARGIN):
        value = [value]
    try:
        jsontext.dumps(value)
    except orjson.JSONEncodeError:
        return True
    return False
