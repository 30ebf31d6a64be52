"""Admission: how many creates a process takes in at once, before it refuses more.

A process stores some hundred responses a second. A crowd of thousands at one instant has to queue for that, in memory
and unseen by the clients, each of which gives up some day. So whoever would wait for too long is refused at once, and
told when there is room. This is our own overload; a store that is away is another matter, and has its own error.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from server.errors import RateLimited

LONGEST_TURN_S = 10.0
"""SDKs wait for minutes, load balancers for one. Nobody should spend more than this in a queue that he can't see."""
ALWAYS_ADMITTED = 200
"""So many wait for less than a second on any machine; below that nothing is measured."""
MEASURED_OVER = 512
"""Creates, of which the rate is taken: it follows the load within a second."""


class Admission:
    """The creates of one process that are not stored yet."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._waiting = 0
        self._busy_since = 0.0
        self._stored: deque[float] = deque(maxlen=MEASURED_OVER)
        """When the last ones were stored, since there was last nothing to do."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The time of one create, from its body to its record.

        Raises:
            RateLimited: it would take longer than `LONGEST_TURN_S` until its turn

        """
        now = self._clock()
        if self._waiting == 0:
            self._busy_since = now
            self._stored.clear()
        elif self._waiting >= ALWAYS_ADMITTED and (wait_s := self._expected_s(now)) > LONGEST_TURN_S:
            text = f"This instance has {self._waiting} requests to store before this one. Try again later."
            # When a place is free again within the time that is allowed.
            raise RateLimited(text, math.ceil(wait_s - LONGEST_TURN_S))
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._stored.append(self._clock())

    def _expected_s(self, now: float) -> float:
        """How long it takes to store what waits, at the rate of late."""
        if len(self._stored) == MEASURED_OVER:
            return self._waiting * (now - self._stored[0]) / MEASURED_OVER
        elapsed_s = now - self._busy_since
        # A crowd is read before any of it is stored: what the first seconds say is not true.
        return self._waiting * elapsed_s / max(1, len(self._stored)) if elapsed_s > LONGEST_TURN_S / 2 else 0.0
