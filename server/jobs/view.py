"""What a reader sees of a cached response: its object and its ETag, folded from the log by whoever reads.

Snapshots of running responses are not stored. A fold is kept in a bounded cache, and next time only what is new is
read; so a poll costs what has happened since the last one, on any replica.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from server.jobs.shared import Shared
from server.protocol import jsontext
from server.protocol.fold import Fold, dumps
from server.protocol.lifecycle import OPENING, Status
from server.protocol.requests import stored_request, without_input
from server.protocol.snapshot import Identity, response_object
from server.protocol.sse import frame_data, split_frames
from storage import START, Batch, Cursor, Reading, Record, Store

CACHED_FOLDS = 1024
CACHED_BYTES = 64 * 1024 * 1024
"""Beyond either, the fold that was read longest ago is dropped; its next reader folds from the start."""
MOST_LOOKS = 4
"""At a fold that is not of the same place as its record."""


@dataclass(frozen=True, slots=True)
class View:
    """One state of one response."""

    record: Record
    body: bytes
    """The Response object, JSON."""

    @property
    def etag(self) -> str:
        return etag_of(self.record)


def etag_of(record: Record) -> str:
    """Opaque; every event, every status and every rerun makes another one."""
    return etag_at(record.cursor)


def etag_at(cursor: Cursor) -> str:
    return f'"{cursor.epoch}.{cursor.last}"'


class LogFold:
    """The fold of one log, and how far it has come."""

    def __init__(self) -> None:
        self.who: Identity | None = None
        """Of whose response, once known."""
        self.cursor = START
        self.size = 0
        self._fold = Fold()

    @property
    def output(self) -> list[dict[str, object]]:
        return self._fold.output

    def take_all(self, reading: Reading) -> None:
        for batch in reading.batches:
            self.take(batch)

    def take(self, batch: Batch) -> None:
        """Apply what is new in a batch. A later epoch starts again; batches may overlap and repeat."""
        if batch.cursor.epoch > self.cursor.epoch:
            self.cursor, self._fold = Cursor(batch.cursor.epoch, -1), Fold()
        if batch.cursor.epoch < self.cursor.epoch or batch.cursor.last <= self.cursor.last:
            return
        for frame in frames_after(batch, self.cursor.last):
            # Lifecycle events carry whole objects but no output of their own.
            if not frame.startswith(_LIFECYCLE):
                self._fold.apply(jsontext.loads(frame_data(frame)))
        self.cursor = batch.cursor
        self.size += len(batch.frames)


_LIFECYCLE = tuple(f"event: {name}\n".encode() for name in OPENING)


def frames_after(batch: Batch, last: int) -> list[bytes]:
    """The frames of a batch behind a number: batches straddle cursors."""
    frames = split_frames(batch.frames)
    first = batch.cursor.last - len(frames) + 1
    return frames[max(0, last + 1 - first) :]


def bytes_after(batch: Batch, last: int) -> bytes:
    """The same as one piece; as good as always it is the whole batch."""
    if batch.cursor.last - batch.frames.count(b"\n\n") >= last:
        return batch.frames
    return b"".join(frames_after(batch, last))


async def fold_log(store: Store, response_id: str) -> LogFold:
    """The fold of a whole log, read page by page."""
    fold = LogFold()
    while reading := await store.responses.read_log(response_id, fold.cursor):
        fold.take_all(reading)
        if reading.reaches_end:
            break
    return fold


class Views:
    """Views of all cached responses, for all readers of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folds: OrderedDict[str, LogFold] = OrderedDict()
        self._size = 0
        self._views: Shared[View | None] = Shared()
        self._records: Shared[Record | None] = Shared()

    async def find(self, response_id: str) -> Record | None:
        """The record alone."""
        return await self._records.ask(response_id, lambda: self._store.responses.find(response_id))

    async def view(self, response_id: str) -> View | None:
        """The current state, or None where there is no such response (any more)."""
        return await self._views.ask(response_id, lambda: self._view(response_id))

    async def _view(self, response_id: str) -> View | None:
        # Held here, because the cache may drop it while we read. Another reader may go on with the same one: `take`
        # passes over what it has.
        fold = self._folds.get(response_id) or LogFold()
        looks = 0
        while True:
            reading = await self._store.responses.read(response_id, fold.cursor, request=fold.who is None)
            if reading is None or reading.snapshot:
                self._drop(response_id)
                return None if reading is None else View(reading.record, reading.snapshot)
            fold.who = fold.who or _identity(reading)
            self._take(fold, reading)
            if not reading.reaches_end:
                continue
            looks += 1
            if fold.cursor == reading.record.cursor or looks == MOST_LOOKS:
                return View(reading.record, _folded(reading, fold, fold.who))
            if looks == MOST_LOOKS - 1:
                # It is ahead for good: a failover lost what it has.
                self._drop(response_id)
                fold = LogFold()
            # Else another reader, whose answer was the newer one, took more into it: one ETag, one state.

    def _take(self, fold: LogFold, reading: Reading) -> None:
        response_id = reading.record.id
        self._drop(response_id)
        fold.take_all(reading)
        self._folds[response_id] = fold
        self._size += fold.size
        while len(self._folds) > CACHED_FOLDS or (self._size > CACHED_BYTES and len(self._folds) > 1):
            self._size -= self._folds.popitem(last=False)[1].size

    def _drop(self, response_id: str) -> None:
        if fold := self._folds.pop(response_id, None):
            self._size -= fold.size


def _identity(reading: Reading) -> Identity:
    """Without the input, which may be long and is not echoed."""
    request = without_input(stored_request(reading.request))
    return Identity(reading.record.id, reading.record.created_at, request)


def _folded(reading: Reading, fold: LogFold, who: Identity) -> bytes:
    record = reading.record
    # The upstream's first fields come into sight with its first output: both under the same number.
    base = jsontext.loads(reading.base) if reading.base and record.cursor.last > len(OPENING) - 1 else None
    return dumps(response_object(who, Status(record.status), base, output=fold.output))
