"""Patience with a server: turns for who wants to ask it, and a deadline for its answer.

Both keep apart what is the server's fault and what is ours. Under load many callers wait for each other, and the event
loop may come round once in seconds, while an answer lies unread in a socket. A plain timer around all of that would
blame the server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TICKS = 10


class Patience:
    """Deadlines for many exchanges: each may take `seconds` of our listening, in ticks that all of them share.

    A tick takes one turn of the event loop at least, however late that comes round.
    """

    def __init__(self, seconds: float) -> None:
        self._tick_s = seconds / TICKS
        self._now = 0
        """Ticks so far."""
        self._begun: dict[asyncio.Timeout, int] = {}
        self._ticking: asyncio.TimerHandle | None = None

    def watch(self, timeout: asyncio.Timeout) -> None:
        """Let this one expire when its time is over, unless it is forgotten before."""
        self._begun[timeout] = self._now
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def forget(self, timeout: asyncio.Timeout) -> None:
        self._begun.pop(timeout, None)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raises TimeoutError when the body takes longer."""
        async with asyncio.timeout(None) as timeout:
            self.watch(timeout)
            try:
                yield
            finally:
                self.forget(timeout)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._now += 1
        for timeout, begun in list(self._begun.items()):
            # The first tick may have come right behind the beginning.
            if self._now - begun > TICKS:
                self.forget(timeout)
                timeout.reschedule(loop.time())
        self._ticking = loop.call_later(self._tick_s, self._tick) if self._begun else None


class Turns:
    """Some may ask at once; the others wait, first come first served, and as long as the server answers."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a turn.

        Raises:
            TimeoutError: the server was silent meanwhile

        """
        if self._free:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._pass_on()  # the turn came, and was given up, in the same moment
            raise

    def give_back(self, *, silent: bool) -> None:
        """The turn is over. Where the server was `silent`, it was so for all who waited meanwhile: they are told.

        One after the other they would wait for minutes to learn it.
        """
        self._pass_on()
        if silent:
            waiting, self._waiting = self._waiting, deque()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(TimeoutError("the store does not answer"))

    def _pass_on(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
