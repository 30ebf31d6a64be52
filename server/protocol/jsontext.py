r"""Reads and writes JSON: with orjson where possible, else with a slower, more tolerant parser.

orjson refuses what every client's parser accepts: half an emoji (`"\ud83d"`, from JavaScript that cut a string between
its two halves), numbers beyond a double (`1e400`), a byte order mark. And it turns integers of more than 64 bits into
doubles. This module reads all of these, and writes them again unchanged. What only some parsers accept (Python's `NaN`,
bytes that are not UTF-8) can be mended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from json.encoder import py_encode_basestring_ascii as escaped
from typing import Any

import orjson

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_LONG_INTEGER = b"0" * 19
"""As many digits as the largest signed 64-bit integer has. orjson reads every integer with fewer digits exactly."""
_DIGITS_AS_ZEROS = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
"""For `bytes.translate`, which with a search for zeros is thirty times as fast as a regular expression."""

Default = Callable[[Any], Any]


def loads(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8. Numbers that Python has no exact value for become `orjson.Fragment`s.

    Raises:
        orjson.JSONDecodeError: no client's parser would accept it either

    """
    if _LONG_INTEGER in raw.translate(_DIGITS_AS_ZEROS):
        return _loads_slowly(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as refused:
        try:
            return _loads_slowly(raw)
        except orjson.JSONDecodeError:
            raise refused from None  # orjson's error describes best what is wrong, and where


def mended(raw: bytes) -> tuple[Any, bytes]:
    """The value of an upstream's text, and the text as every client's parser accepts it: usually the same bytes.

    Bytes that are not UTF-8 become U+FFFD, as in a browser's decoder; `NaN` and `Infinity`, which Python writes, become
    null, as in JavaScript.

    Raises:
        orjson.JSONDecodeError: it can't be mended

    """
    try:
        return loads(raw), raw
    except orjson.JSONDecodeError:
        value = _loads_slowly(raw.decode("utf-8", "replace").encode(), constant=lambda _: None)
        try:
            return value, dumps(value)
        except orjson.JSONEncodeError as error:
            raise orjson.JSONDecodeError("nested too deeply to be mended", "", 0) from error


def _refused(constant: str) -> None:
    raise orjson.JSONDecodeError(f"{constant} is no JSON", "", 0)


def _loads_slowly(raw: bytes, constant: Callable[[str], Any] = _refused) -> Any:
    try:
        text = raw.removeprefix(BYTE_ORDER_MARK).decode()
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise orjson.JSONDecodeError(f"not UTF-8 at byte {error.start}", "", 0) from error
    except RecursionError as error:
        raise orjson.JSONDecodeError("nested too deeply", "", 0) from error
    except json.JSONDecodeError as error:
        raise orjson.JSONDecodeError(error.msg, error.doc, error.pos) from error


def _integer(text: str) -> Any:
    return int(text) if len(text) < len(_LONG_INTEGER) else orjson.Fragment(text.encode())


def _float(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else orjson.Fragment(text.encode())


def dumps(value: Any, default: Default | None = None) -> bytes:
    """The JSON text of a value that may hold anything `loads` gives. `default` is for what is not JSON's own.

    Raises:
        orjson.JSONEncodeError: it is nested too deeply

    """
    try:
        return orjson.dumps(value, default=default)
    except orjson.JSONEncodeError:
        try:
            return orjson.dumps(_writable(value, default))
        except RecursionError as error:
            raise orjson.JSONEncodeError("nested too deeply") from error


def _writable(value: Any, default: Default | None) -> Any:
    """The value with each string that can't be UTF-8 written as escapes. Two adjacent halves become one character."""
    if isinstance(value, str):
        return orjson.Fragment(escaped(value).encode()) if is_cut(value) else value
    if isinstance(value, dict):
        return {_key(key): _writable(inner, default) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(inner, default) for inner in value]
    if value is None or isinstance(value, bool | int | float | orjson.Fragment) or default is None:
        return value
    return _writable(default(value), default)


def _key(key: Any) -> Any:
    # orjson can't write a fragment as a key, so half an emoji in a key is replaced; no known key has one.
    return key.encode("utf-8", "replace").decode() if isinstance(key, str) and is_cut(key) else key


def uncut(value: Any) -> Any:
    """The value for readers that take only UTF-8: U+FFFD stands for each half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if is_cut(value) else value
    if isinstance(value, dict):
        return {uncut(key): uncut(inner) for key, inner in value.items()}
    return [uncut(inner) for inner in value] if isinstance(value, list) else value


def is_cut(text: str) -> bool:
    """Whether the text contains half a surrogate pair, which can be written only as an escape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
