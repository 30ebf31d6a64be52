"""Reads request bodies and decodes them as `Content-Encoding` says (RFC 9110, section 8.4).

aiohttp's own decoding is switched off. Pollux thereby refuses an unknown encoding with an error in OpenAI's format, and
decodes zstd (which Codex sends) without a further library.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from aiohttp import web
from zstandard import ZstdDecompressor, ZstdError

from server.api.context import context_of
from server.errors import MalformedBody, TooLarge, UnknownEncoding

IN_A_THREAD_BYTES = 256 * 1024
"""A longer body is decoded in a thread, because decoding it on the event loop blocks all requests for milliseconds."""
STEP_BYTES = 1024
MOST_ENCODINGS = 4
"""How many encodings one body may be wrapped in. Clients in practice use one."""


async def read_body(request: web.Request) -> bytes:
    """The decoded body. Both its encoded and its decoded form may have at most `max_body_bytes`.

    Raises:
        UnknownEncoding, TooLarge
        MalformedBody: the body is not encoded as its header says

    """
    raw = await request.read()
    codings = _codings(request)
    if not codings:
        return raw
    limit_bytes = context_of(request).config.pollux.max_body_bytes
    if len(raw) > IN_A_THREAD_BYTES:
        return await asyncio.to_thread(_decoded, raw, codings, limit_bytes)
    return _decoded(raw, codings, limit_bytes)


def _codings(request: web.Request) -> list[str]:
    """The encodings of the body in the order in which they must be undone, the outermost first."""
    if "Content-Encoding" not in request.headers:
        return []
    named = [word.strip().lower() for word in ",".join(request.headers.getall("Content-Encoding")).split(",")]
    codings = [word for word in named if word not in ("", "identity")]
    if len(codings) > MOST_ENCODINGS or not _DECODERS.keys() >= set(codings):
        raise UnknownEncoding(", ".join(codings), KNOWN)
    return codings[::-1]


def _decoded(raw: bytes, codings: list[str], limit_bytes: int) -> bytes:
    for coding in codings:
        try:
            raw = _DECODERS[coding](raw, limit_bytes)
        except (zlib.error, ZstdError, EOFError) as error:
            raise MalformedBody from error
        if len(raw) > limit_bytes:
            raise TooLarge(limit_bytes)
    return raw


def _inflate(window: int) -> Callable[[bytes, int], bytes]:
    def decode(raw: bytes, limit_bytes: int) -> bytes:
        decoder = zlib.decompressobj(window)
        decoded = decoder.decompress(raw, limit_bytes + 1)
        if not decoder.eof and len(decoded) <= limit_bytes:
            raise EOFError
        return decoded

    return decode


_zlib, _raw_deflate = _inflate(zlib.MAX_WBITS), _inflate(-zlib.MAX_WBITS)


def _deflate(raw: bytes, limit_bytes: int) -> bytes:
    # By the standard, `deflate` is zlib's format; some clients leave out its two-byte header.
    return (_zlib if raw[:1] and raw[0] & 0x0F == zlib.DEFLATED else _raw_deflate)(raw, limit_bytes)


def _unzstd(raw: bytes, limit_bytes: int) -> bytes:
    """Decode frame by frame, a little input at a time: a few bytes can expand to 128 KB, and the limit must hold."""
    decoded, rest = bytearray(), memoryview(raw)
    while rest:
        decoder = ZstdDecompressor().decompressobj()
        while rest and not decoder.eof and len(decoded) <= limit_bytes:
            decoded += decoder.decompress(rest[:STEP_BYTES])
            rest = rest[min(STEP_BYTES, len(rest)) - len(decoder.unused_data) :]
        if len(decoded) > limit_bytes:
            break
        if not decoder.eof:
            raise EOFError
    return bytes(decoded)


_gzip = _inflate(16 + zlib.MAX_WBITS)
_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _unzstd,
}
KNOWN = "gzip, deflate, zstd"
