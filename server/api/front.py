"""The front of a process: the sockets that it listens on, and the connections of its clients. Closed in an order that
loses no request.

A load balancer can't repeat a POST that it has sent. So no connection on which a request may be under way is ever
closed before that request is answered, and what the kernel has accepted for the process is served too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from server.api.connection import HttpRunner
from server.sockets import turn_away

HANDSHAKES_END_WITHIN_S = 0.05
"""How long connections that have begun may take to be complete, and to be accepted: some round trips."""
FIRST_REQUEST_WITHIN_S = 1.0
"""How long a new connection may take to send its first request, once nothing listens any more."""
LOOK_EVERY_S = 0.02


class Front:
    """What one process serves on."""

    def __init__(self, runner: HttpRunner, sockets: Sequence[socket.socket]) -> None:
        self._runner = runner
        self._sockets = sockets

    async def close(self, hurry: asyncio.Event) -> None:
        """Take no new connection, and close those that wait for another request.

        Balancers that try to connect are refused, and go elsewhere. Returns when the connections that were made last
        have sent their requests.
        """
        turn_away(self._sockets)
        await asyncio.sleep(HANDSHAKES_END_WITHIN_S)
        for site in self._runner.sites:
            await site.stop()
        for held in self._sockets:
            held.close()
        await asyncio.sleep(0)  # so that requests which have arrived are taken up
        self._runner.close_idle()
        await self._until(lambda: not self._runner.unused, FIRST_REQUEST_WITHIN_S, hurry)

    async def end_requests(self, within_s: float, hurry: asyncio.Event) -> None:
        """Wait until all requests that are under way are answered, for so long or until `hurry`."""
        await self._until(lambda: not self._runner.busy, within_s, hurry)

    def abort(self) -> None:
        """Break the connections of all requests that are still under way: clients then know of it."""
        for connection in self._runner.busy:
            connection.abort()

    async def _until(self, done: Callable[[], bool], within_s: float, hurry: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        # Looking again costs less than connections that tell, which each request would pay for.
        while not done() and not hurry.is_set() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_S)
