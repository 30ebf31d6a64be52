"""The ends of the logs that are followed in this process: each is read once for all its followers."""

from __future__ import annotations

from collections import OrderedDict, deque

from server.responses.shared import Shared
from storage import Batch, Cursor, Reading, Store

TAIL_BYTES = 256 * 1024
"""How much of one log is kept. A follower that lags behind by more reads from the store on its own."""
TAILS = 128
"""How many logs have a tail here; beyond that, the one that was read longest ago is dropped."""


class _Tail:
    """Consecutive batches behind a cursor."""

    def __init__(self, start: Cursor) -> None:
        self.start = self.end = start
        self._batches: deque[Batch] = deque()
        self._size = 0

    def covers(self, cursor: Cursor) -> bool:
        return cursor.epoch == self.start.epoch and self.start.last <= cursor.last <= self.end.last

    def take(self, batches: tuple[Batch, ...]) -> None:
        """Append the batches that are new."""
        for batch in batches:
            if batch.cursor.last > self.end.last:
                self._batches.append(batch)
                self._size += len(batch.frames)
                self.end = batch.cursor
        while self._size > TAIL_BYTES:
            dropped = self._batches.popleft()
            self._size -= len(dropped.frames)
            self.start = dropped.cursor

    def behind(self, cursor: Cursor) -> tuple[Batch, ...]:
        found: list[Batch] = []
        for batch in reversed(self._batches):
            if batch.cursor.last <= cursor.last:
                break
            found.append(batch)
        return tuple(reversed(found))


class Tails:
    """Reads logs for all followers of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tails: OrderedDict[str, _Tail] = OrderedDict()
        self._shared: Shared[Reading | None] = Shared()

    async def read_log(self, response_id: str, cursor: Cursor) -> Reading | None:
        """Read what lies behind the cursor, like `Responses.read_log`; None if there is no such response."""
        tail = self._tails.get(response_id)
        if tail is None or not tail.covers(cursor):
            reading = await self._store.responses.read_log(response_id, cursor)
            if reading is not None and reading.reaches_end:
                self._keep(response_id, cursor, reading)
            return reading
        reading = await self._shared.ask(tail, lambda: self._read_on(response_id, tail))
        if reading is None or reading.record.cursor.last < tail.end.last or not tail.covers(cursor):
            # The response is gone, a failover lost the end of its log, or the tail no longer reaches back to `cursor`.
            return reading and await self._store.responses.read_log(response_id, cursor)
        return Reading(reading.record, batches=tail.behind(cursor))

    async def _read_on(self, response_id: str, tail: _Tail) -> Reading | None:
        reading = await self._store.responses.read_log(response_id, tail.end)
        if reading is None or reading.record.cursor < tail.end or reading.record.cursor.epoch != tail.end.epoch:
            self._tails.pop(response_id, None)
        else:
            tail.take(reading.batches)
            if reading.record.terminal:
                self._tails.pop(response_id, None)  # it has ended, so nothing more will come
            elif response_id in self._tails:
                self._tails.move_to_end(response_id)
        return reading

    def _keep(self, response_id: str, cursor: Cursor, reading: Reading) -> None:
        end = reading.record.cursor
        if reading.record.terminal or end.epoch != cursor.epoch or end.last < cursor.last:
            return
        tail = self._tails[response_id] = _Tail(cursor)
        tail.take(reading.batches)
        self._tails.move_to_end(response_id)
        while len(self._tails) > TAILS:
            self._tails.popitem(last=False)
