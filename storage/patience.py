"""Patience with a server: callers take turns, and each exchange has a deadline for the server's answer.

A plain timer would blame the server for delays of our own. Under load callers wait for each other, and the event loop
may take seconds for one round while the answer already lies unread in a socket. So waiting for a turn does not count
towards the deadline, and the deadline passes only while the event loop goes round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TICKS = 10


class Patience:
    """Deadlines for many exchanges, each `seconds` long and measured in ticks of one shared timer.

    At most one tick passes in each round of the event loop. A loop that was blocked for a minute has therefore used up
    one tick of the deadline, not all of it, and reads the answers that arrived meanwhile.
    """

    def __init__(self, seconds: float) -> None:
        self._tick_s = seconds / TICKS
        self._now = 0
        """The number of ticks so far."""
        self._begun: dict[asyncio.Timeout, int] = {}
        self._ticking: asyncio.TimerHandle | None = None

    def watch(self, timeout: asyncio.Timeout) -> None:
        """Let this timeout expire when its time is over, unless `forget` is called before."""
        self._begun[timeout] = self._now
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def forget(self, timeout: asyncio.Timeout) -> None:
        self._begun.pop(timeout, None)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raise TimeoutError if the body takes longer than the deadline."""
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
            # `>`, not `>=`: the first tick may have come right after the exchange began.
            if self._now - begun > TICKS:
                self.forget(timeout)
                timeout.reschedule(loop.time())
        self._ticking = loop.call_later(self._tick_s, self._tick) if self._begun else None


class Turns:
    """At most `count` callers have a turn at once; the others wait in order, as long as the server answers."""

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        return self._count - self._free

    async def take(self) -> None:
        """Wait for a turn.

        Raises:
            TimeoutError: the server left another caller without an answer while this one waited

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
                self._pass_on()  # the turn was given to this caller just as it was cancelled: the next one gets it
            raise

    def give_back(self, *, silent: bool) -> None:
        """End a turn. If the server was `silent`, all callers that wait for a turn fail now.

        Otherwise each would take its turn and wait for the whole deadline, one after the other, for minutes.
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
