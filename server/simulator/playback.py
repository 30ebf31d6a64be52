"""The events of one reply, each given when it is due on the event loop's clock.

A playback has no task. How far it has come follows from the clock (`Schedule.due_s`), so it goes on while
nobody looks and costs nothing meanwhile. Only a stop changes its course, and wakes whoever waits.
"""

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Iterable

from server.simulator.events import Event
from server.simulator.pace import Pace
from server.simulator.reply import Schedule

# What is due at once goes out in one write, but not more than this: other clients want their turn.
_BATCH = 64
# uvloop rounds timers to milliseconds. Rounded down, they fire early, again and again.
_TIMER_S = 0.0005


class Playback:
    """Starts when it is made."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._stopped_at: int | None = None
        self._sleepers: set[asyncio.Future[None]] = set()

    @property
    def stopped(self) -> bool:
        return self._stopped_at is not None

    def stops_at(self, number: int) -> bool:
        """Whether it was stopped so early that the event with this number did not become due."""
        return self._stopped_at is not None and number >= self._stopped_at

    def is_due(self, number: int) -> bool:
        return self._schedule.due_s(number) <= self._elapsed_s()

    def due_of(self, count: int) -> int:
        """How many of the first `count` events are due."""
        # Asked of the same function that `play` asks: with arithmetic of its own, rounding could let a
        # stream be one event ahead of where a stop puts the end, and it would never meet it.
        return bisect.bisect_right(range(count), self._elapsed_s(), key=self._schedule.due_s)

    def stop(self, number: int) -> None:
        """The event with this number is the last one, and due now."""
        self._stopped_at = number
        for sleeper in self._sleepers:
            _wake(sleeper)

    async def until(self, number: int) -> None:
        """Return when the event is due, or the playback is stopped."""
        await self._sleep_until(self._schedule.due_s(number))

    async def play(
        self,
        events: Iterable[Event],
        encode: Callable[[int, Event], bytes],
        write: Callable[[bytes], Awaitable[None]],
        pace: Pace,
        *,
        before: int | None = None,
    ) -> int:
        """Write the frames of the events numbered below `before`, each when it is due.

        A frame is made when its event is due; an empty one is not written. Returns how many events were gone
        through: `before`, or fewer where they ended first. The clock, not the number of sleeps, decides what
        is due: a stream that is late sends several frames in one write and keeps the rate.
        """
        batch: list[bytes] = []
        count = 0
        now_s = self._elapsed_s()
        for number, event in enumerate(events):
            if number == before:
                break
            due_s = self._schedule.due_s(number)
            if len(batch) == _BATCH:
                await _flush(batch, write)
                await asyncio.sleep(0)
            if due_s > now_s:
                await _flush(batch, write)
                await self._sleep_until(max(due_s, now_s + pace.pause_s))
                now_s = self._elapsed_s()
            count = number + 1
            if frame := encode(number, event):
                batch.append(frame)
            if self.stops_at(number):
                break
        await _flush(batch, write)
        return count

    def _elapsed_s(self) -> float:
        return self._loop.time() - self._started

    async def _sleep_until(self, due_s: float) -> None:
        """Sleep until that long after the start, or until the playback is stopped."""
        while self._stopped_at is None and due_s > self._elapsed_s():
            sleeper = self._loop.create_future()
            timer = self._loop.call_at(self._started + due_s + _TIMER_S, _wake, sleeper)
            self._sleepers.add(sleeper)
            try:
                await sleeper
            finally:
                timer.cancel()
                self._sleepers.discard(sleeper)


async def _flush(batch: list[bytes], write: Callable[[bytes], Awaitable[None]]) -> None:
    if batch:
        frames = b"".join(batch)
        batch.clear()
        await write(frames)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
