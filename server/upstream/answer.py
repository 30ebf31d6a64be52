"""A deployment's answer: its headers, and what it says, read once: as one JSON object, or as the events of a stream.

Whatever dialect the deployment speaks, the object and the events are those of the Responses API.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import aiohttp

from server.errors import UpstreamUnavailable
from server.protocol.dialects.counting import Count
from server.protocol.dialects.reply import Reply
from server.protocol.sse import ServerEvent
from server.tracing import NO_SPAN
from server.upstream.frames import frames_of
from server.upstream.place import Framing

LONGEST_ANSWER_BYTES = 256 * 1024 * 1024
"""A longer answer is refused. One with many generated images has some ten megabytes."""

_PASSED_ON = re.compile(
    r"openai-(processing-ms|version|poll-after-ms)|x-ratelimit-[\w-]{1,64}|retry-after(-ms)?", re.IGNORECASE
)
_REQUEST_IDS = ("x-request-id", "apim-request-id", "request-id", "x-amzn-requestid")
"""The headers with the provider's id of a request: OpenAI's, Azure's, Anthropic's."""
EVENT_STREAM = "text/event-stream"
_LONGEST_FIELD = len(b"event:")
_FIELDS = (b":", b"data:", b"event:", b"id:", b"retry:")
_BLANK = b" \t\r\n\xef\xbb\xbf"
"""The bytes that may precede the first field: white space and a byte order mark."""


class Answer:
    """An answer that has begun, valid inside the block of `Upstream.open`. Reading may raise what aiohttp raises."""

    def __init__(
        self, response: aiohttp.ClientResponse, reply: Reply | Count | None = None, framing: Framing = Framing.SSE
    ) -> None:
        self._response = response
        self._reply = reply
        """The translation of what it says; None if it is in the words of the Responses API."""
        self._framing = framing
        self._frames = frames_of(framing)
        self.on_first_event: Callable[[], None] | None = None
        """Called when the first events have come."""
        self.span = NO_SPAN
        """The span of the call."""
        self._opening = b""
        """Bytes that `is_stream` has read and `_piece` has not returned yet."""

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def request_id(self) -> str | None:
        """The id under which the provider has the call in its own log."""
        return next((found for name in _REQUEST_IDS if (found := self.headers.get(name))), None)

    @property
    def passed_on(self) -> dict[str, str]:
        """The headers that are passed on to the client."""
        found = {name: value for name, value in self.headers.items() if _is_passed_on(name)}
        if request_id := self.request_id:
            found["x-upstream-request-id"] = request_id
        return found

    @property
    def content_type(self) -> str:
        """The content type that the upstream declares, which may be wrong (see `is_stream`)."""
        return self._response.content_type

    async def is_stream(self, patience_s: float | None = None) -> bool:
        """Whether the body is server-sent events. Its first bytes decide; if they are ambiguous, its content type does.

        Waits for these bytes, but no longer than `patience_s` if the content type says that they are events.
        """
        if self._framing is not Framing.SSE:
            return self.content_type == self._framing  # no text may be taken for binary messages
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

    async def events(self) -> list[ServerEvent] | None:
        """The events that have come since the last call, possibly none; waits for more bytes. None at the end.

        Raises:
            EventTooLong

        """
        events = self._events_in(await self._piece())
        if events and self.on_first_event is not None:
            self.on_first_event()
            self.on_first_event = None
        return events

    def _events_in(self, piece: bytes) -> list[ServerEvent] | None:
        if self._reply is None:
            return self._frames.feed(piece) if piece else None
        return self._reply.take(self._frames.feed(piece)) if piece else self._reply.end() or None

    async def _piece(self) -> bytes:
        """The next bytes of the body, as they arrive; empty at its end."""
        if self._opening:
            opening, self._opening = self._opening, b""
            return opening
        return await self._response.content.readany()

    async def json(self) -> bytes:
        """The whole body, which is JSON unless the provider breaks the protocol.

        Raises:
            UpstreamUnavailable: the body is longer than `LONGEST_ANSWER_BYTES`

        """
        body = bytearray()
        while piece := await self._piece():
            body += piece
            if len(body) > LONGEST_ANSWER_BYTES:
                raise UpstreamUnavailable("The provider's answer is too long.", begun=True)
        return bytes(body) if self._reply is None else self._reply.whole(bytes(body))

    async def beginning(self, limit_bytes: int) -> bytes:
        """The first `limit_bytes` of the body; the rest is not read."""
        body = bytearray()
        while len(body) < limit_bytes and (piece := await self._piece()):
            body += piece
        return bytes(body[:limit_bytes])

    async def let_gather(self, seconds: float) -> None:
        """Pause reading, so that events gather in the kernel and are read together.

        With a thousand runs this reduces the cost of an event to a third (9 µs).
        """
        protocol = self._response.connection and self._response.connection.protocol
        if not seconds or protocol is None:
            return  # without a connection, the whole body has arrived
        protocol.pause_reading()
        try:
            await asyncio.sleep(seconds)
        finally:
            protocol.resume_reading()


@lru_cache(1024)
def _is_passed_on(name: str) -> bool:
    return _PASSED_ON.fullmatch(name) is not None


def _looks_like_events(opening: bytes, *, labelled: bool) -> bool | None:
    """Whether the first bytes begin a stream of events; None if too few have come to decide."""
    text = opening.lstrip(_BLANK)
    if any(text.startswith(field) for field in _FIELDS):
        return True
    if text[:1] in (b"{", b"[", b"<", b'"'):
        return False
    if len(text) < _LONGEST_FIELD:
        return None
    # Either plain text, or a stream that begins with an unknown field, which readers must ignore.
    return labelled
