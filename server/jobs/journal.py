"""The writing side of one event log: the frames that its run has added, and how many of them are stored.

A run adds frames without waiting; the group commit (`committer.py`) takes and stores them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from storage import Append, Finish, Lease, Outcome, Spent, Step, StoreError

log = logging.getLogger("pollux.jobs")

EAGER_BYTES = 64 * 1024
"""A journal that holds more than this is sent at once."""
PENDING_BYTES = 4 * 1024 * 1024
"""A journal that holds more than this takes no more: its run stops reading, and the provider has to wait."""
KEPT_BYTES = 64 * 1024
"""How much of the stored frames a journal keeps, to send them again if a failover loses them: a second of events."""


class Lost(Exception):
    """This run may no longer write its log: the lease was lost, or the response has ended or is gone."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class StoreGone(Exception):
    """The store stayed away, or full, for longer than `store_grace_s`."""

    def __init__(self, cause: StoreError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Unservable(Exception):
    """No deployment in this replica's config serves the job. During a rollout, another replica may have one."""


class Lane(Protocol):
    """What a journal needs of the group commit that stores its frames."""

    def notice(self, journal: Journal, *, urgent: bool) -> None:
        """This journal has something to `take`."""

    @property
    def pace_s(self) -> float:
        """How long a run should let the provider's events gather before it reads on: 0 unless there are many runs."""

    def hold(self, more_bytes: int) -> None:
        """Count so many more bytes (fewer if negative) that a journal holds and the store does not have yet."""

    @property
    def crowded(self) -> bool:
        """Whether all journals together hold more than they may."""

    async def finish(self, finish: Finish) -> Step:
        """Store an end, trying until the store answers. Raises `StoreGone`."""


class Journal:
    """The log of one leased job. Only its own run adds to it."""

    def __init__(self, lane: Lane, lease: Lease, on_lost: Callable[[Outcome], None]) -> None:
        self.lease = lease
        self.ran_on = lease.ran_on
        """The deployment that was asked last, or empty."""
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
        """How many batches were made so far."""
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
        """Add the frame with the number `next_number`. Readers see it only once it is stored."""
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
            # Wait until our own frames are stored. A run that holds nothing may go on, so no run stands still for ever.
            await self._until(lambda: not self._bytes)

    async def flush(self) -> None:
        """Wait until everything is stored.

        Raises:
            Lost, StoreGone

        """
        self._lane.notice(self, urgent=True)
        await self._until(lambda: not self.dirty)

    async def finish(
        self, frame: bytes, status: str, snapshot: bytes, *, abandon: bool, spent: Spent | None = None
    ) -> None:
        """Store the remaining frames, the terminal frame and the final object in one step.

        Raises:
            Lost, StoreGone

        """
        self._closed = True
        await self._until(lambda: not self._sending)
        self._frames.append(frame)
        while True:
            made = Finish(self._append(len(self._frames)), status, snapshot, abandon, spent)
            step = await self._lane.finish(made)
            if step.outcome is Outcome.OK:
                return
            if not self._acknowledge(step):
                raise Lost(step.outcome)

    def abandon(self) -> None:
        """Drop what is not stored, and the failure with it, so that the end can still be written."""
        self._frames.clear()
        self._fields.clear()
        self._hold(-self._bytes)
        self._failure = None

    def close(self) -> None:
        """Close the journal and drop what it holds."""
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

    # Called by the committer.

    def take(self) -> Append:
        """Make one batch of everything that is not stored. The frames stay here until `settle` says they are stored."""
        self._sending = True
        return self._append(len(self._frames))

    def _append(self, count: int) -> Append:
        first = self._committed + 1
        frames = b"".join(self._frames[:count])
        self._batches += 1
        return Append(self.lease, first, self._committed + count, frames, dict(self._fields), self._batches)

    def settle(self, append: Append, step: Step) -> None:
        """Take note of the outcome of a batch that was taken."""
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
        """Correct our idea of what is stored after a gap. Returns whether the rest can be sent again.

        If the log is longer than we knew, a call that we had given up was run after all: a store that comes back runs
        what it had received. The batch has grown meanwhile, and its first frames are stored already. If the log is
        shorter, a failover lost its end.
        """
        if step.outcome is not Outcome.GAP or step.last == self._committed or step.last >= self.next_number:
            return False
        if step.last < self._committed:
            return self._rewind(step.last)
        self._drop(step.last)
        return True

    def _rewind(self, last: int) -> bool:
        """Take back frames that were stored and that a failover has lost. Returns whether all of them were kept."""
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
        """Note that the frames up to `last` are stored. The newest of them are kept, see `KEPT_BYTES`."""
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
        """Note that the batch which was taken may not have arrived, and has to be sent again."""
        self._sending = False
        self._moved.set()
