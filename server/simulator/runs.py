"""The responses that the simulator knows, and each one's progress in time.

A run has no task. How far it has come follows from the clock (`Schedule.due_s`), so a background response
goes on while nobody looks, costs nothing meanwhile, and any number of streams can follow it. Only a cancel
changes its course, and wakes whoever waits.
"""

import asyncio
import bisect
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import cached_property

from server.simulator.errors import ApiError
from server.simulator.pace import Pace
from server.simulator.reply import Reply, response_object
from server.simulator.script import cancelled_event, encode_frame, failed_response, script
from server.simulator.turn import Json

# What is due at once goes out in one write, but not more than this: other clients want their turn.
_BATCH = 64
# uvloop rounds timers to milliseconds. Rounded down, they fire early, again and again.
_TIMER_S = 0.0005


class Run:
    """One reply being given, on the event loop's clock."""

    def __init__(self, reply: Reply, size_bytes: int) -> None:
        self.reply = reply
        self._schedule = reply.schedule()
        self.size_bytes = size_bytes
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._cancelled_after: int | None = None
        self._sleepers: set[asyncio.Future[None]] = set()

    @property
    def event_count(self) -> int:
        """How many events it has in all, unless it is cancelled."""
        return self._outcome[0]

    @cached_property
    def _outcome(self) -> tuple[int, Json]:
        """The number of events, and the response as it will be in the end."""
        count, last = 0, None
        for event in script(self.reply):
            count, last = count + 1, event.body.get("response")
        return count, last or failed_response(self.reply)

    @property
    def finished(self) -> bool:
        """Whether it ended by itself; a cancelled run never does."""
        return self._cancelled_after is None and self._schedule.due_s(self.event_count - 1) <= self._elapsed_s()

    @property
    def over(self) -> bool:
        return self._cancelled_after is not None or self.finished

    def response(self) -> Json:
        """The Response object as of now; as at OpenAI its output is empty until it ends."""
        if self._cancelled_after is not None:
            return response_object(self.reply, "cancelled")
        if self.finished:
            return self._outcome[1]
        queued = self.reply.background and self._events_due() <= 2
        return response_object(self.reply, "queued" if queued else "in_progress")

    def cancel(self) -> None:
        """End it here: no event that is not due by now will come. Harmless on a run that is over."""
        if not self.over:
            self._cancelled_after = self._events_due()
            for sleeper in self._sleepers:
                _wake(sleeper)

    async def until_event(self, number: int) -> None:
        """Return when the event is due, or the run is cancelled."""
        await self._sleep_until(self._schedule.due_s(number))

    async def until_finished(self) -> None:
        await self.until_event(self.event_count - 1)

    async def play(
        self,
        write: Callable[[bytes], Awaitable[None]],
        pace: Pace,
        *,
        after: int = -1,
        before: int | None = None,
        obfuscated: bool = True,
    ) -> int:
        """Write the frames numbered above `after` and below `before`, each when it is due.

        Returns how many events were gone through: `before`, or fewer where the run ended first. The clock,
        not the number of sleeps, decides what is due: a stream that is late sends several frames in one
        write and keeps the rate.
        """
        numbered = not self.reply.directives.no_sequence
        batch: list[bytes] = []
        count = 0
        now_s = self._elapsed_s()
        for number, event in enumerate(script(self.reply)):
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
            ended = self._cancelled_after is not None and number >= self._cancelled_after
            if number > after:
                sent = cancelled_event(self.reply) if ended else event
                batch.append(encode_frame(sent, number, numbered=numbered, obfuscated=obfuscated))
            if ended:
                break
        await _flush(batch, write)
        return count

    def _elapsed_s(self) -> float:
        return self._loop.time() - self._started

    def _events_due(self) -> int:
        # Asked of the same function that `play` asks: with arithmetic of its own, rounding could let a
        # stream be one event ahead of where a cancel puts the end, and it would never meet it.
        return bisect.bisect_right(range(self.event_count), self._elapsed_s(), key=self._schedule.due_s)

    async def _sleep_until(self, due_s: float) -> None:
        """Sleep until that long after the start, or until the run is cancelled."""
        while self._cancelled_after is None and due_s > self._elapsed_s():
            sleeper = self._loop.create_future()
            timer = self._loop.call_at(self._started + due_s + _TIMER_S, _wake, sleeper)
            self._sleepers.add(sleeper)
            try:
                await sleeper
            finally:
                timer.cancel()
                self._sleepers.discard(sleeper)


class Runs:
    """The runs that can be asked for by id; the oldest that are over make room for new ones."""

    def __init__(self, limit: int = 10_000, limit_bytes: int = 256 * 1024 * 1024) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._size_bytes = 0

    def add(self, run: Run) -> None:
        """Keep a run. Raises `ApiError` 429 when the place is taken by runs that are not over yet."""
        self._make_room(run.size_bytes)
        self._runs[run.reply.id] = run
        self._size_bytes += run.size_bytes

    def find(self, response_id: str) -> Run | None:
        return self._runs.get(response_id)

    def drop(self, response_id: str) -> None:
        """Forget a run, and end it."""
        run = self._runs.pop(response_id, None)
        if run is not None:
            self._size_bytes -= run.size_bytes
            run.cancel()

    def clear(self) -> None:
        for response_id in list(self._runs):
            self.drop(response_id)

    def _make_room(self, size_bytes: int) -> None:
        while self._runs and (len(self._runs) >= self._limit or self._size_bytes + size_bytes > self._limit_bytes):
            over = next((key for key, run in self._runs.items() if run.over), None)
            if over is None:
                message = "The simulator keeps too many unfinished responses: try again later."
                raise ApiError(429, message, code="rate_limit_exceeded")
            self.drop(over)


async def _flush(batch: list[bytes], write: Callable[[bytes], Awaitable[None]]) -> None:
    if batch:
        frames = b"".join(batch)
        batch.clear()
        await write(frames)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
