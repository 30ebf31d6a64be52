"""What a reader sees of a cached response: its object and its ETag.

Snapshots of running responses are not stored: the replica that answers folds the log. It keeps the fold in a bounded
cache and next time reads only the new events, so a poll costs no more than what has happened since the last one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from server.eventlog import LogFold
from server.protocol import jsontext
from server.protocol.fold import dumps
from server.protocol.lifecycle import OPENING, Status
from server.protocol.requests import stored_request, without_input
from server.protocol.snapshot import Identity, response_object
from server.responses.shared import Shared
from storage import Cursor, Reading, Record, Store

CACHED_FOLDS = 1024
CACHED_BYTES = 64 * 1024 * 1024
"""Beyond either, the fold that was read longest ago is dropped; its next reader folds from the start."""
CACHED_S = 60.0
"""A fold that was not read for so long is dropped too: its readers have left, or ask other replicas."""
MOST_LOOKS = 4
"""How often a response is read again while its fold and its record are at different places."""


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
    """An opaque ETag, which changes with every event, status and rerun."""
    return etag_at(record.cursor)


def etag_at(cursor: Cursor) -> str:
    return f'"{cursor.epoch}.{cursor.last}"'


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
        # A local reference, because the cache may drop the fold while we read. Another reader may be using the same
        # fold: `take` skips events that it has already.
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
                # The fold is still ahead of the record, because a failover lost events that it has: start again.
                self._drop(response_id)
                fold = LogFold()
            # Otherwise another reader got a newer answer and has moved the fold on. We read again, so that the body
            # shows the place that the ETag names.

    def _take(self, fold: LogFold, reading: Reading) -> None:
        response_id = reading.record.id
        self._drop(response_id)
        fold.take_all(reading)
        fold.read_at = asyncio.get_running_loop().time()
        self._folds[response_id] = fold
        self._size += fold.size
        while len(self._folds) > CACHED_FOLDS or (self._size > CACHED_BYTES and len(self._folds) > 1):
            self._size -= self._folds.popitem(last=False)[1].size
        while next(iter(self._folds.values())).read_at < fold.read_at - CACHED_S:
            self._size -= self._folds.popitem(last=False)[1].size

    def _drop(self, response_id: str) -> None:
        if fold := self._folds.pop(response_id, None):
            self._size -= fold.size


def _identity(reading: Reading) -> Identity:
    """The identity of a response. Its request is kept without the input, which may be long and is not echoed."""
    request = without_input(stored_request(reading.request))
    return Identity(reading.record.id, reading.record.created_at, request)


def _folded(reading: Reading, fold: LogFold, who: Identity) -> bytes:
    record = reading.record
    # The upstream's own fields are shown only once its first event is logged, because they have no number of their own:
    # shown earlier, they would change the object without changing the ETag.
    base = jsontext.loads(reading.base) if reading.base and record.cursor.last > len(OPENING) - 1 else None
    return dumps(response_object(who, Status(record.status), base, output=fold.output))
