"""An answer that is written piece by piece: its deadline for writing, and its two ways to end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

WRITE_TIMEOUT_S = 30.0
"""A client that takes nothing for so long is cut off; what it reads can be asked for again."""
SMALL_BYTES = 16 * 1024
"""Well below what a transport takes before it asks to wait (64 KB)."""


class StreamAborted(Exception):
    """The connection was dropped: nothing more can be sent."""


class Outflow:
    """Open until `end` or `abort`."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        # A proxy in front must not gather what shall arrive now.
        self.response = web.StreamResponse(headers={**headers, "X-Accel-Buffering": "no"})
        self._wrote_at = 0.0

    async def start(self) -> None:
        """Send the headers.

        Raises:
            StreamAborted: the client is gone
        """
        try:
            await self.response.prepare(self._request)
        except ConnectionError as error:
            raise StreamAborted from error
        self._wrote_at = asyncio.get_running_loop().time()

    async def write(self, data: bytes) -> None:
        """Send; returns when it is on its way.

        Raises:
            StreamAborted: the client is gone, or too slow

        """
        loop = asyncio.get_running_loop()
        try:
            if self._has_room(len(data)):
                await self.response.write(data)
            else:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self.response.write(data)
        except (TimeoutError, ConnectionError) as error:
            self.abort()
            raise StreamAborted from error
        self._wrote_at = loop.time()

    def _has_room(self, size: int) -> bool:
        """Whether a write of so many bytes can't have to wait: it then needs no timer, which costs a third of it."""
        transport = self._request.transport
        return size < SMALL_BYTES and transport is not None and transport.get_write_buffer_size() == 0

    async def end(self) -> None:
        """The clean end: only where all was said."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self.response.write_eof()
        except (TimeoutError, ConnectionError):
            self.abort()

    def abort(self) -> None:
        """Drop the connection without the last chunk: ended cleanly, SDKs would take it for the normal end."""
        if self._request.transport is not None:
            self._request.transport.abort()
