"""What a deployment answered: its head, and its body once, as a whole or piece by piece."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import lru_cache

import aiohttp

from server.errors import UpstreamUnavailable

LONGEST_ANSWER_BYTES = 256 * 1024 * 1024
"""A response with many generated images has some ten megabytes; beyond this an upstream has lost its mind."""

_PASSED_ON = re.compile(
    r"openai-(processing-ms|version|poll-after-ms)|x-ratelimit-[\w-]{1,64}|retry-after(-ms)?", re.IGNORECASE
)
EVENT_STREAM = "text/event-stream"
_LONGEST_FIELD = len(b"event:")
_FIELDS = (b":", b"data:", b"event:", b"id:", b"retry:")
_BLANK = b" \t\r\n\xef\xbb\xbf"
"""What may stand before the first field, a byte order mark among it."""


class Answer:
    """An answer that has begun, valid inside the block of `Upstream.open`. Reading may raise what aiohttp raises."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._opening = b""
        """What was read to see what it is, and not yet given out."""

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def request_id(self) -> str | None:
        """By which the provider finds the call in its own log."""
        return self.headers.get("x-request-id") or self.headers.get("apim-request-id")

    @property
    def passed_on(self) -> dict[str, str]:
        """What a client gets of these headers."""
        found = {name: value for name, value in self.headers.items() if _is_passed_on(name)}
        if request_id := self.request_id:
            found["x-upstream-request-id"] = request_id
        return found

    @property
    def content_type(self) -> str:
        """As the upstream labels it. It may lie, see `is_stream`."""
        return self._response.content_type

    async def is_stream(self, patience_s: float | None = None) -> bool:
        """Whether the body is server-sent events: its first bytes decide, and the label only where they don't.

        Waits for these bytes. Where the label says that they are events, no longer than `patience_s`.
        """
        labelled = self.content_type == EVENT_STREAM
        try:
            async with asyncio.timeout(patience_s if labelled else None):
                while (found := _looks_like_events(self._opening, labelled=labelled)) is None:
                    piece = await self._response.content.readany()
                    if not piece:
                        return labelled
                    self._opening += piece
        except aiohttp.ServerTimeoutError:
            raise
        except TimeoutError:
            return labelled
        return found

    async def piece(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at its end."""
        if self._opening:
            opening, self._opening = self._opening, b""
            return opening
        return await self._response.content.readany()

    async def body(self, limit_bytes: int = LONGEST_ANSWER_BYTES) -> bytes:
        """All of it.

        Raises:
            UpstreamUnavailable: it is longer

        """
        body = bytearray()
        while piece := await self.piece():
            body += piece
            if len(body) > limit_bytes:
                raise UpstreamUnavailable("The provider's answer is too long.", begun=True)
        return bytes(body)

    async def beginning(self, limit_bytes: int) -> bytes:
        """All of the body, or as much as that; the rest is not read."""
        body = bytearray()
        while len(body) < limit_bytes and (piece := await self.piece()):
            body += piece
        return bytes(body[:limit_bytes])

    async def let_gather(self, seconds: float) -> None:
        """Leave what is sent in the kernel for a while: a thousand runs then cost a third (9 µs an event)."""
        protocol = self._response.connection and self._response.connection.protocol
        if not seconds or protocol is None:
            return  # without one, all of it has arrived
        protocol.pause_reading()
        try:
            await asyncio.sleep(seconds)
        finally:
            protocol.resume_reading()


@lru_cache(1024)
def _is_passed_on(name: str) -> bool:
    return _PASSED_ON.fullmatch(name) is not None


def _looks_like_events(opening: bytes, *, labelled: bool) -> bool | None:
    """None: what has come so far does not tell."""
    text = opening.lstrip(_BLANK)
    if any(text.startswith(field) for field in _FIELDS):
        return True
    if text[:1] in (b"{", b"[", b"<", b'"'):
        return False
    if len(text) < _LONGEST_FIELD:
        return None
    # A field that nobody knows may begin a stream (readers pass over it), or it is plain text.
    return labelled
