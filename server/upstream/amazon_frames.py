"""Amazon's framing of a stream, `application/vnd.amazon.eventstream`: binary messages, each with an event of Claude's.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
Only a deployment that needs it imports this module.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import aiohttp
from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from server.protocol import jsontext
from server.protocol.sse import ServerEvent, encode_frame


class AmazonFrames:
    """Cuts a byte stream into events, however it is chunked. botocore bounds a message to 24 MB."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events completed by this chunk.

        Raises:
            aiohttp.ClientPayloadError: the bytes are no such messages, or are damaged

        """
        self._buffer.add_data(chunk)
        try:
            return [event for message in self._buffer if (event := _event(message)) is not None]
        except (ParserError, struct.error, AttributeError, KeyError, TypeError, ValueError) as error:
            raise aiohttp.ClientPayloadError(f"the event stream is damaged: {type(error).__name__}") from error


def _event(message: EventStreamMessage) -> ServerEvent | None:
    """The event in a message; None if there is none that a reader of Messages would know."""
    headers = message.headers
    if headers.get(":message-type") != "event":
        return _failure(headers, message.payload)
    if headers.get(":event-type") != "chunk":
        return None
    data = base64.b64decode(jsontext.loads(message.payload)["bytes"])
    kind = jsontext.loads(data).get("type")
    return _framed(kind if isinstance(kind, str) else "message", data)


def _failure(headers: dict[str, Any], payload: bytes) -> ServerEvent:
    kind = str(headers.get(":exception-type") or headers.get(":error-code") or "")
    said = jsontext.loads(payload) if payload.startswith(b"{") else {}
    message = said.get("message") or said.get("Message") or headers.get(":error-message") or f"The stream ended: {kind}"
    error = {"type": "api_error", "code": kind or "server_error", "message": str(message)}
    return _framed("error", jsontext.dumps({"type": "error", "error": error}))


def _framed(kind: str, data: bytes) -> ServerEvent:
    return ServerEvent(kind, data, encode_frame(kind, data))
