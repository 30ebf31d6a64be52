"""Admission: how many creates a process takes in at once before it refuses more.

A process stores a few hundred responses a second. If thousands of creates arrive at one instant, they queue in memory,
where the clients can't see them and give up sooner or later. So a create that would wait too long is refused at once,
and told when to try again. This is about a process that is overloaded; a store that is away has an error of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from server.errors import RateLimited

LONGEST_TURN_S = 10.0
"""The longest time that a create may wait in the queue. SDKs wait for minutes, load balancers for one minute."""
ALWAYS_ADMITTED = 200
"""While fewer creates than this wait, none is refused: any machine stores them in less than a second."""
MEASURED_OVER = 512
"""The rate is measured over so many creates, so that it follows the load within a second."""


class Admission:
    """The creates of one process that are not stored yet."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._waiting = 0
        self._busy_since = 0.0
        self._stored: deque[float] = deque(maxlen=MEASURED_OVER)
        """When the last creates were stored; emptied whenever a create finds nothing waiting."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Count one create as waiting, from the arrival of its body until its record is stored.

        Raises:
            RateLimited: it would have to wait longer than `LONGEST_TURN_S`

        """
        now = self._clock()
        if self._waiting == 0:
            self._busy_since = now
            self._stored.clear()
        elif self._waiting >= ALWAYS_ADMITTED and (wait_s := self._expected_s(now)) > LONGEST_TURN_S:
            text = f"This instance has {self._waiting} requests to store before this one. Try again later."
            # After this time, a new create would wait no longer than allowed.
            raise RateLimited(text, math.ceil(wait_s - LONGEST_TURN_S))
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._stored.append(self._clock())

    def _expected_s(self, now: float) -> float:
        """How long it takes to store all waiting creates, at the rate of the last ones."""
        if len(self._stored) == MEASURED_OVER:
            return self._waiting * (now - self._stored[0]) / MEASURED_OVER
        elapsed_s = now - self._busy_since
        # The bodies of a crowd are read before any of it is stored, so the rate of the first seconds is too low.
        return self._waiting * elapsed_s / max(1, len(self._stored)) if elapsed_s > LONGEST_TURN_S / 2 else 0.0
