"""Amazon's framing: any bytes in any chunks give the same events, or the one error that a reader expects."""

from __future__ import annotations

import base64
import struct

import aiohttp

from server.upstream.amazon_frames import AmazonFrames
from tests.fuzz.material import Material
from tests.support.amazon import framed

_NAMES = (":message-type", ":event-type", ":exception-type", ":error-code", ":error-message", ":content-type", "x")
_VALUES = ("event", "exception", "error", "chunk", "throttlingException", "")
_PAYLOADS = (
    *(b"", b"{", b"{}", b"[]", b"5", b"null", b'{"bytes": 5}', b'{"bytes": "!"}', b'{"bytes": "eyJ0eXBlIjo1fQ=="}'),
    *(b'{"bytes": "W10="}', b'{"message": ["x"]}', b'{"Message": "slow down"}', b'{"bytes": "e30=", "p": "ab"}'),
)


def fuzz(data: bytes) -> None:
    material = Material(data)
    raw = b"".join(_message(material) for _ in material.times(4))
    events, broke = _read([raw[place : place + 1] for place in range(len(raw))])
    for chunks in (material.cuts(raw), [raw]):
        told, breaks = _read(chunks)
        assert breaks == broke
        # What comes in one chunk with the damage is lost with it: the stream has failed.
        assert told == (events[: len(told)] if broke else events)


def _read(chunks: list[bytes]) -> tuple[list[tuple[str, bytes]], bool]:
    frames, events = AmazonFrames(), list[tuple[str, bytes]]()
    for chunk in chunks:
        try:
            events += [(event.name, event.data) for event in frames.feed(chunk)]
        except aiohttp.ClientPayloadError:
            return events, True
    return events, False


def _message(material: Material) -> bytes:
    """A message whose checksums are right, whatever is in it; or bytes that are none."""
    kind = material.number(8)
    if kind == 0:
        return material.raw(material.number(32))
    headers = b"".join(_header(material) for _ in material.times(4)) if kind > 1 else material.raw(12)
    return framed(headers, material.pick(_PAYLOADS) if material.number(4) else _chunk(material))


def _chunk(material: Material) -> bytes:
    return b'{"bytes": "%b"}' % base64.b64encode(material.json(("type", "delta", "x"), ("ping", "error")))


def _header(material: Material) -> bytes:
    name, kind = material.pick(_NAMES).encode(), material.number(12)
    value = material.raw(8)
    if kind > 6:
        kind, value = 7, material.pick(_VALUES).encode()
    if kind in (6, 7):
        value = struct.pack("!H", len(value)) + value
    return struct.pack("!B", len(name)) + name + struct.pack("!B", kind) + value
