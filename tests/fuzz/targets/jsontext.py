"""JSON: what every client's parser accepts is read as it is read there, and is written again without a loss."""

from __future__ import annotations

import json
from typing import Any

import orjson

from server.protocol import jsontext
from tests.fuzz.material import Material

_KEYS = ("a", "b", "id")


def fuzz(data: bytes) -> None:
    material = Material(data)
    raw = material.rest() if material.number(4) == 0 else material.json(_KEYS, _KEYS)
    if material.number(8) == 1:
        raw = jsontext.BYTE_ORDER_MARK + raw
    _is_mended(raw)
    try:
        value = jsontext.loads(raw)
    except orjson.JSONDecodeError:
        assert _slowly(raw) is None, "every client can read it"
        return
    [expected] = _slowly(raw) or [None]
    assert _comparable(value) == _comparable(expected)
    written = jsontext.dumps(value)
    written.decode()
    assert _comparable(jsontext.loads(written)) == _comparable(_with_plain_keys(expected))
    orjson.dumps(jsontext.uncut(_without_fragments(value)))


def _is_mended(raw: bytes) -> None:
    try:
        value, text = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return
    read = _slowly(text)
    assert read is not None
    assert text is raw or _comparable(_with_plain_keys(value)) == _comparable(read[0])


def _slowly(raw: bytes) -> list[Any] | None:
    """What Python's own parser reads; None if it, or any stricter one, refuses the text."""
    try:
        text = raw.removeprefix(jsontext.BYTE_ORDER_MARK).decode()
        return [json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refused)]
    except (ValueError, RecursionError):
        return None


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _comparable(value: Any) -> Any:
    """The value, where numbers that are the same are equal, and no others."""
    match value:
        case dict():
            return {key: _comparable(inner) for key, inner in value.items()}
        case list():
            return [_comparable(inner) for inner in value]
        case orjson.Fragment():
            return ("number", orjson.dumps(value).decode())
        case _Number() | int() | float() if not isinstance(value, bool):
            return ("number", _number(str(value)))
        case _:
            return value


def _number(text: str) -> str:
    """A number in the form that we keep it: what is exact as it was written, else the nearest double."""
    if text.lstrip("-").isdigit():
        return text if len(text) >= 19 else str(int(text))
    found = float(text)
    return text if found in (float("inf"), float("-inf")) else repr(found)


def _with_plain_keys(value: Any) -> Any:
    """The value with question marks for half an emoji in a key: no writer has a form for those."""
    if isinstance(value, dict):
        return {key.encode("utf-8", "replace").decode(): _with_plain_keys(inner) for key, inner in value.items()}
    return [_with_plain_keys(inner) for inner in value] if isinstance(value, list) else value


def _without_fragments(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_fragments(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_fragments(inner) for inner in value]
    return None if isinstance(value, orjson.Fragment) else value
