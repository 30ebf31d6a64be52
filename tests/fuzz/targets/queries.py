"""Queries and headers of clients: understood, ignored, or refused by an error of ours."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any, cast

from aiohttp import HttpVersion11
from multidict import CIMultiDict
from yarl import URL

from server.api import body, query
from server.api.context import CONTEXT
from server.config import parse_config
from server.errors import PolluxError
from tests.fuzz.material import Material

_CONFIG = parse_config({})
_LIMIT_BYTES = 5000
_VALUES = (
    *("30", "0", "-1", "nan", "inf", "1e400", "1_0", "٣", "0x1", "true", "FALSE", "1", "9" * 30, "+5", "a,b,,a", "*"),
    *('W/"1.5"', '"', '"1.5", "2.6"', "wait=30", "wait", "wait=", 'wait="5"', "respond-async, wait=7;x", "wait=²"),
    *(",;="),
    *("gzip", "zstd", "deflate", "identity", "br", "gzip,gzip", "x-gzip, , identity", "g" * 2000),
    *("reasoning.encrypted_content",),
)
_NAMES = ("wait", "after", "limit", "ids", "ids[]", "include", "include[]", "stream", "order", "starting_after")
_HEADERS = ("Prefer", "If-None-Match", "Content-Encoding")
_CODINGS = ("gzip", "x-gzip", "deflate", "zstd")


class _Asked(dict[Any, Any]):
    """What is read of a request here. One of aiohttp's own takes a hundred times as long to make."""

    method, version = "GET", HttpVersion11

    def __init__(self, headers: CIMultiDict[str], query_string: str) -> None:
        super().__init__({CONTEXT: SimpleNamespace(config=_CONFIG)})
        self.headers, self.query_string = headers, query_string
        self.query = URL(f"http://x/?{query_string}", encoded=True).query


def fuzz(data: bytes) -> None:
    material = Material(data)
    request = _request(material)
    for read in (
        lambda: query.wait_of(request),
        lambda: query.unconditional_wait_of(request),
        lambda: query.limit(request),
        lambda: query.listed_ids(request),
        lambda: query.includes(request),
        lambda: query.several(request, "ids"),
        lambda: query.integer(request, "starting_after"),
        lambda: query.flag(request, "stream", default=False),
        lambda: query.choice(request, "order", ("asc", "desc"), "desc"),
        lambda: body._codings(request),
    ):
        try:
            found = cast("Any", read)()
        except PolluxError as error:
            assert error.status in (400, 415), error
            assert len(error.message) < 1000
            continue
        if isinstance(found, query.Wait):
            assert found.seconds is None or 0 <= found.seconds <= 900
            "".join(found.headers.values()).encode("ascii")
    _is_decoded(material)


def _request(material: Material) -> Any:
    def value() -> str:
        return material.pick(_VALUES) if material.number(4) else material.raw(12).decode("utf-8", "surrogateescape")

    headers = CIMultiDict((material.pick(_HEADERS), value()) for _ in material.times(4))
    asked = "&".join(f"{material.pick(_NAMES)}={_quoted(value())}" for _ in material.times(4))
    return _Asked(headers, asked)


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))


def _is_decoded(material: Material) -> None:
    """A body is bounded whatever it is wrapped in, also if it grows a thousandfold."""
    codings = [material.pick(_CODINGS) for _ in material.times(3)]
    raw = material.raw(64)
    if material.number(2):
        raw = zlib.compress(raw * (1 + material.number(200)), wbits=material.pick((31, 15, -15)))
    try:
        decoded = body._decoded(raw, codings, _LIMIT_BYTES)
    except PolluxError as error:
        assert error.status in (400, 413)
    else:
        assert len(decoded) <= _LIMIT_BYTES
