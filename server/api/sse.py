"""A stream of server-sent events to one client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from server.api.outflow import Outflow
from server.protocol.sse import HEARTBEAT

HEARTBEAT_S = 15.0
"""After so much silence a comment is sent, because proxies cut idle connections at 30 or 60 s."""

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


class SseStream(Outflow):
    """A stream of events. Call `end` only after the terminal event: SDKs take any clean end for a complete stream."""

    def __init__(self, request: web.Request, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(request, {**(headers or {}), **_HEADERS})

    async def heartbeat(self, data: bytes = HEARTBEAT) -> None:
        """Send a comment if nothing was sent for `HEARTBEAT_S`."""
        # Half a second less, because the timers of the callers may fire slightly early.
        if asyncio.get_running_loop().time() - self._wrote_at > HEARTBEAT_S - 0.5:
            await self.write(data)
