"""An answer that is written piece by piece, with a deadline for each write, and either a clean end or an abort."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from server.api.context import context_of

WRITE_TIMEOUT_S = 30.0
"""A client that reads nothing for so long is disconnected. It can ask for the same response again."""
SMALL_BYTES = 16 * 1024
"""Well below the 64 KB that a transport buffers before a write has to wait."""


class StreamAborted(Exception):
    """The connection was dropped: nothing more can be sent."""


class Outflow:
    """An answer that stays open until `end` or `abort` is called."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        # Tells a proxy such as nginx to pass each piece on instead of buffering.
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
        """Send a piece; returns when the transport has taken it.

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
        """Whether a write of this size is certain not to wait. It then needs no timer, which is a third of its cost."""
        transport = self._request.transport
        return size < SMALL_BYTES and transport is not None and transport.get_write_buffer_size() == 0

    async def end(self) -> None:
        """End cleanly, which tells the client that the answer is complete."""
        if context_of(self._request).phase.leaving:
            self.response.force_close()  # the headers may have gone out before the process was told to end
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self.response.write_eof()
        except (TimeoutError, ConnectionError):
            self.abort()

    def abort(self) -> None:
        """Drop the connection without the last chunk. SDKs would take a clean end for a complete answer."""
        if self._request.transport is not None:
            self._request.transport.abort()
