"""The responses that the simulator knows, and each one's progress in time."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property

from server.simulator.errors import ApiError
from server.simulator.events import Event
from server.simulator.pace import Pace
from server.simulator.playback import Playback
from server.simulator.reply import Reply
from server.simulator.responses.objects import response_object
from server.simulator.responses.script import cancelled_event, encode_frame, failed_response, script
from server.simulator.turn import Json


class Run:
    """One reply being given, followed by any number of streams; only a cancel changes its course."""

    def __init__(self, reply: Reply, items: Sequence[Json], size_bytes: int) -> None:
        self.reply = reply
        self.items = items
        self.size_bytes = size_bytes
        self.playback = Playback(reply.schedule())

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
        return not self.playback.stopped and self.playback.is_due(self.event_count - 1)

    @property
    def over(self) -> bool:
        return self.playback.stopped or self.finished

    def response(self) -> Json:
        """The Response object as of now; as at OpenAI its output is empty until it ends."""
        if self.playback.stopped:
            return response_object(self.reply, "cancelled")
        if self.finished:
            return self._outcome[1]
        queued = self.reply.background and self._events_due() <= 2
        return response_object(self.reply, "queued" if queued else "in_progress")

    def cancel(self) -> None:
        """End it here: no event that is not due by now will come. Harmless on a run that is over."""
        if not self.over:
            self.playback.stop(self._events_due())

    async def play(
        self,
        write: Callable[[bytes], Awaitable[None]],
        pace: Pace,
        *,
        after: int = -1,
        before: int | None = None,
        obfuscated: bool = True,
    ) -> int:
        """Write the frames numbered above `after` and below `before`, as `Playback.play` does."""
        numbered = not self.reply.directives.no_sequence

        def encode(number: int, event: Event) -> bytes:
            if number <= after:
                return b""
            sent = cancelled_event(self.reply) if self.playback.stops_at(number) else event
            return encode_frame(sent, number, numbered=numbered, obfuscated=obfuscated)

        return await self.playback.play(script(self.reply), encode, write, pace, before=before)

    def _events_due(self) -> int:
        return self.playback.due_of(self.event_count)


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
