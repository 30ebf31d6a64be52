"""Patience with a server: turns for who wants to ask it, and a deadline for its answer.

Both keep apart what is the server's fault and what is ours. Under load many callers wait for each other, and the event
loop may come round once in seconds, while an answer lies unread in a socket. A plain timer around all of that would
blame the server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

TICKS = 10


class Patience:
    """An async context manager: raises TimeoutError when its body takes longer than `seconds` of our listening.

    They are counted in ticks, each of which takes one turn of the event loop at least.
    """

    __slots__ = ("_handle", "_left", "_loop", "_tick_s", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._tick_s = seconds / TICKS
        self._left = TICKS
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(self._tick_s, self._tick)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        # It raises by itself, where its deadline has come.
        await self._timeout.__aexit__(kind, error, trace)

    def _tick(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._handle = self._loop.call_later(self._tick_s, self._tick)
        else:
            self._timeout.reschedule(self._loop.time())


class Turns:
    """Some may ask at once; the others wait, first come first served, and as long as the server answers."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pass_on()
        if isinstance(error, TimeoutError):
            # It was silent while they waited too. One after the other they would wait for minutes to learn that.
            self._give_up()

    def _pass_on(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def _give_up(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(TimeoutError("the store does not answer"))
