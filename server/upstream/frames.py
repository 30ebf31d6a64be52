"""How the bytes of a stream are cut into events."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from server.protocol.sse import ServerEvent, SseParser
from server.upstream.place import Framing

_AMAZON = "server.upstream.amazon_frames"


class Frames(Protocol):
    """A reader of one stream."""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events completed by this chunk.

        Raises:
            EventTooLong, aiohttp.ClientPayloadError

        """


def frames_of(framing: Framing) -> Frames:
    """A new reader of streams that are framed so."""
    if framing is Framing.SSE:
        return SseParser()
    made: Frames = import_module(_AMAZON).AmazonFrames()
    return made
