"""Reading an event log: the frames behind a place in it, and the fold of all its events."""

from __future__ import annotations

from server.protocol import jsontext
from server.protocol.fold import Fold
from server.protocol.lifecycle import OPENING
from server.protocol.snapshot import Identity
from server.protocol.sse import frame_data, split_frames
from storage import START, Batch, Cursor, Reading, Store


class LogFold:
    """The fold of one log, and how far it has come."""

    def __init__(self) -> None:
        self.who: Identity | None = None
        """The identity of the response, once it was read."""
        self.cursor = START
        self.size = 0
        self.read_at = 0.0
        """When it was last taken further, on the loop's clock."""
        self._fold = Fold()

    @property
    def output(self) -> list[dict[str, object]]:
        return self._fold.output

    def take_all(self, reading: Reading) -> None:
        for batch in reading.batches:
            self.take(batch)

    def take(self, batch: Batch) -> None:
        """Apply the new events of a batch. A later epoch starts the fold again; batches may overlap or repeat."""
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
    """The frames of a batch with a higher number than `last`: a reader's cursor may lie inside a batch."""
    frames = split_frames(batch.frames)
    first = batch.cursor.last - len(frames) + 1
    return frames[max(0, last + 1 - first) :]


def bytes_after(batch: Batch, last: int) -> bytes:
    """The frames of a batch with a higher number than `last`, as one piece. Nearly always that is the whole batch."""
    if batch.cursor.last - batch.frames.count(b"\n\n") >= last:
        return batch.frames
    return b"".join(frames_after(batch, last))


async def fold_log(store: Store, response_id: str) -> LogFold:
    """Read a whole log page by page, and fold it."""
    fold = LogFold()
    while reading := await store.responses.read_log(response_id, fold.cursor):
        fold.take_all(reading)
        if reading.reaches_end:
            break
    return fold
