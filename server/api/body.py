"""Request bodies: read, and decoded from what `Content-Encoding` says (RFC 9110, section 8.4).

aiohttp would decode some of it by itself; here it is told not to, so that an encoding that nobody knows is refused in
the contract's words, and zstd (which Codex sends) needs no further library.
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
"""A longer body is decoded in a thread: it would hold up everybody else for milliseconds."""
STEP_BYTES = 1024
MOST_ENCODINGS = 4
"""One around the other. Nobody sends more than one."""


async def read_body(request: web.Request) -> bytes:
    """The body as its sender meant it, of at most `max_body_bytes`, encoded and decoded.

    Raises:
        UnknownEncoding, TooLarge
        MalformedBody: it is not encoded as it says

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
    """In the order in which they are undone."""
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
    # The standard means zlib's format; some clients leave out its two bytes of header.
    return (_zlib if raw[:1] and raw[0] & 0x0F == zlib.DEFLATED else _raw_deflate)(raw, limit_bytes)


def _unzstd(raw: bytes, limit_bytes: int) -> bytes:
    """Frame by frame, a little of the input at a time: a few bytes of it may stand for 128 KB."""
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
