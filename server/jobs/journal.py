"""The writing side of one event log: what its run has added, and what of it is stored.

A run adds frames and goes on; the group commit (`committer.py`) takes and stores them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from storage import Append, Finish, Lease, Outcome, Step, StoreError

log = logging.getLogger("pollux.jobs")

EAGER_BYTES = 64 * 1024
"""A journal that holds more than this is sent at once."""
PENDING_BYTES = 4 * 1024 * 1024
"""A journal that holds more than this takes no more: its run stops reading, and the provider has to wait."""
KEPT_BYTES = 64 * 1024
"""What a journal keeps of what is stored, should a failover lose it: a second of events, at most."""


class Lost(Exception):
    """The job is no longer ours to write."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class StoreGone(Exception):
    """The store stayed away, or full, for longer than `store_grace_s`."""

    def __init__(self, cause: StoreError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Unservable(Exception):
    """No deployment in this replica's config serves the job: in a rolling change, another one's may."""


class Lane(Protocol):
    """Who stores what journals hold."""

    def notice(self, journal: Journal, *, urgent: bool) -> None:
        """This journal has something to `take`."""

    @property
    def pace_s(self) -> float:
        """How long a run should let events gather before it takes them in: 0 unless there are very many runs."""

    def hold(self, more_bytes: int) -> None:
        """A journal holds so many bytes more (less, where negative) that are not stored."""

    @property
    def crowded(self) -> bool:
        """All journals together hold as much as they may."""

    async def finish(self, finish: Finish) -> Step:
        """Store an end, however often it takes. Raises `StoreGone`."""


class Journal:
    """The log of one leased job. Only its own run adds to it."""

    def __init__(self, lane: Lane, lease: Lease, on_lost: Callable[[Outcome], None]) -> None:
        self.lease = lease
        self._lane = lane
        self._on_lost = on_lost
        self._committed = lease.last
        self._frames: list[bytes] = []
        self._fields: dict[str, str | bytes] = {}
        self._bytes = 0
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._stored_fields: dict[str, str | bytes] = {}
        self._sending = False
        self._batches = 0
        """How many were taken."""
        self._closed = False
        self._moved = asyncio.Event()
        self._failure: Lost | StoreGone | None = None

    @property
    def next_number(self) -> int:
        return self._committed + len(self._frames) + 1

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    @property
    def dirty(self) -> bool:
        return bool(self._frames or self._fields) and not self._closed

    @property
    def pace_s(self) -> float:
        return self._lane.pace_s

    def add(self, frame: bytes, *, urgent: bool = False) -> None:
        """Add the frame of the next number. Nobody sees it before it is stored."""
        self._frames.append(frame)
        self._hold(len(frame))
        self._lane.notice(self, urgent=urgent or self._bytes >= EAGER_BYTES)

    def note(self, **fields: str | bytes) -> None:
        """Set fields of the record together with the frame that is added next."""
        self._fields |= fields

    def set(self, **fields: str | bytes) -> None:
        """Set fields of the record with the next batch, which is sent at once."""
        self._fields |= fields
        self._lane.notice(self, urgent=True)

    async def room(self) -> None:
        """Wait until the journal may take more.

        Raises:
            Lost, StoreGone

        """
        if self._failure is not None or self._bytes > PENDING_BYTES:
            await self._until(lambda: self._bytes <= PENDING_BYTES)
        while self._bytes and self._lane.crowded:
            # What is ours is stored in its turn, as is everybody's: whoever holds nothing may go on.
            await self._until(lambda: not self._bytes)

    async def flush(self) -> None:
        """Wait until everything is stored.

        Raises:
            Lost, StoreGone

        """
        self._lane.notice(self, urgent=True)
        await self._until(lambda: not self.dirty)

    async def finish(self, frame: bytes, status: str, snapshot: bytes, *, abandon: bool) -> None:
        """Store what is left, the terminal frame and the final object, in one step.

        Raises:
            Lost, StoreGone

        """
        self._closed = True
        await self._until(lambda: not self._sending)
        self._frames.append(frame)
        while True:
            made = Finish(self._append(len(self._frames)), status, snapshot, abandon)
            step = await self._lane.finish(made)
            if step.outcome is Outcome.OK:
                return
            if not self._acknowledge(step):
                raise Lost(step.outcome)

    def abandon(self) -> None:
        """Give up what is not stored, so that the end can be written."""
        self._frames.clear()
        self._fields.clear()
        self._hold(-self._bytes)
        self._failure = None

    def close(self) -> None:
        """Nobody writes it any more: what it holds is given up."""
        self._closed = True
        self._hold(-self._bytes)

    def _hold(self, more_bytes: int) -> None:
        self._bytes += more_bytes
        self._lane.hold(more_bytes)

    async def _until(self, done: Callable[[], bool]) -> None:
        while self._failure is None and not done():
            self._moved.clear()
            await self._moved.wait()
        if self._failure is not None:
            raise self._failure

    # The committer's side.

    def take(self) -> Append:
        """Everything that waits, as one batch. Stays here until `settle` says that it is stored."""
        self._sending = True
        return self._append(len(self._frames))

    def _append(self, count: int) -> Append:
        first = self._committed + 1
        frames = b"".join(self._frames[:count])
        self._batches += 1
        return Append(self.lease, first, self._committed + count, frames, dict(self._fields), self._batches)

    def settle(self, append: Append, step: Step) -> None:
        """The outcome of a batch that was taken."""
        self._sending = False
        if step.outcome is Outcome.OK:
            self._drop(append.last)
            self._stored_fields |= append.fields
            self._fields = {k: v for k, v in self._fields.items() if append.fields.get(k) != v}
            self._moved.set()
        elif self._acknowledge(step):
            self._moved.set()
            if self.dirty:
                self._lane.notice(self, urgent=True)
        else:
            self.fail(Lost(step.outcome))

    def _acknowledge(self, step: Step) -> bool:
        """Whether a gap only says that a batch which seemed lost has arrived: then the rest is sent again.

        A store that was away for longer than we waited runs what it got when it is back. Meanwhile the batch has
        grown, and as a whole it no longer fits.
        """
        if step.outcome is not Outcome.GAP or step.last == self._committed or step.last >= self.next_number:
            return False
        if step.last < self._committed:
            return self._rewind(step.last)
        self._drop(step.last)
        return True

    def _rewind(self, last: int) -> bool:
        """Whether what a failover lost can be sent again: events that were stored, and then were not."""
        lost = self._committed - last
        if lost > len(self._kept):
            return False
        again = list(self._kept)[-lost:]
        log.warning("the store lost %d events, sending them again", lost, extra={"response_id": self.lease.id})
        self._kept.clear()
        self._kept_bytes = 0
        self._frames[:0] = again
        self._hold(sum(map(len, again)))
        self._committed = last
        self._fields = self._stored_fields | self._fields
        return True

    def _drop(self, last: int) -> None:
        """Forget the frames that are stored."""
        count = last - self._committed
        self._hold(-sum(map(len, self._frames[:count])))
        for frame in self._frames[:count]:
            self._kept.append(frame)
            self._kept_bytes += len(frame)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft())
        del self._frames[:count]
        self._committed = last

    def fail(self, failure: Lost | StoreGone) -> None:
        self._sending = False
        self._failure = failure
        self._moved.set()
        if isinstance(failure, Lost):
            self._on_lost(failure.outcome)

    def unsent(self) -> None:
        """The batch that was taken may not have arrived: it will be sent again."""
        self._sending = False
        self._moved.set()
