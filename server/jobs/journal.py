"""The writing side of the event logs: one group commit a process.

A run adds frames to its journal and goes on; the committer sends what all journals of this process have gathered as
one pipeline, again and again. So the store sees a few large calls, whatever the number of jobs, and a slow store makes
the batches larger instead of the queue longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from storage import Append, Finish, Lease, Outcome, Step, Store, StoreError, StoreFull, StoreUnavailable

log = logging.getLogger("pollux.jobs")

T = TypeVar("T")

INTERVAL_S = 0.02
"""How long frames gather before they are sent: below what a reader notices."""
EAGER_BYTES = 64 * 1024
"""A journal that holds more than this is sent at once."""
PENDING_BYTES = 4 * 1024 * 1024
"""A journal that holds more than this takes no more: its run stops reading, and the provider has to wait."""
KEPT_BYTES = 64 * 1024
"""What a journal keeps of what is stored, should a failover lose it: a second of events, at most."""
COMMIT_BYTES = 8 * 1024 * 1024
"""What one pipeline carries at most: a larger one would hold up everybody's commands."""


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


class Journal:
    """The log of one leased job. Only its own run adds to it."""

    def __init__(self, committer: Committer, lease: Lease, on_lost: Callable[[Outcome], None]) -> None:
        self.lease = lease
        self._committer = committer
        self._on_lost = on_lost
        self._committed = lease.last
        self._frames: list[bytes] = []
        self._fields: dict[str, str | bytes] = {}
        self._bytes = 0
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._stored_fields: dict[str, str | bytes] = {}
        self._sending = False
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

    def add(self, frame: bytes, *, urgent: bool = False) -> None:
        """Add the frame of the next number. Nobody sees it before it is stored."""
        self._frames.append(frame)
        self._bytes += len(frame)
        self._committer.notice(self, urgent=urgent or self._bytes >= EAGER_BYTES)

    def note(self, **fields: str | bytes) -> None:
        """Set fields of the record together with the frame that is added next."""
        self._fields |= fields

    def set(self, **fields: str | bytes) -> None:
        """Set fields of the record with the next batch, which is sent at once."""
        self._fields |= fields
        self._committer.notice(self, urgent=True)

    async def room(self) -> None:
        """Wait until the journal may take more.

        Raises:
            Lost, StoreGone

        """
        if self._failure is not None or self._bytes > PENDING_BYTES:
            await self._until(lambda: self._bytes <= PENDING_BYTES)

    async def flush(self) -> None:
        """Wait until everything is stored.

        Raises:
            Lost, StoreGone

        """
        self._committer.notice(self, urgent=True)
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
            step = await self._committer.patiently(partial(self._committer.store.jobs.finish, made))
            if step.outcome is Outcome.OK:
                return
            if not self._acknowledge(step):
                raise Lost(step.outcome)

    def abandon(self) -> None:
        """Give up what is not stored, so that the end can be written."""
        self._frames.clear()
        self._fields.clear()
        self._bytes = 0
        self._failure = None

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
        return Append(self.lease, first, self._committed + count, frames, dict(self._fields))

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
                self._committer.notice(self, urgent=True)
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
        self._bytes += sum(map(len, again))
        self._committed = last
        self._fields = self._stored_fields | self._fields
        return True

    def _drop(self, last: int) -> None:
        """Forget the frames that are stored."""
        count = last - self._committed
        for frame in self._frames[:count]:
            self._bytes -= len(frame)
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


class Committer:
    """The group commit of one process. `run` must be running for anything to be stored."""

    def __init__(self, store: Store, *, lease_s: float, store_grace_s: float) -> None:
        self.store = store
        self._lease_s = lease_s
        self._store_grace_s = store_grace_s
        self._dirty: dict[Journal, None] = {}
        self._any = asyncio.Event()
        self._urgent = asyncio.Event()

    def new_grace(self) -> Grace:
        return Grace(self._store_grace_s)

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of the store, asked as often as it takes.

        Raises:
            StoreGone
        """
        grace = self.new_grace()
        while True:
            try:
                return await ask()
            except StoreUnavailable as error:
                await grace.hold_on(error)

    def notice(self, journal: Journal, *, urgent: bool) -> None:
        self._dirty[journal] = None
        self._any.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Commit until cancelled."""
        grace = self.new_grace()
        while True:
            await self._any.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._urgent.wait()
            batch = self._gather()
            failed = await self._commit(batch)
            if failed is None:
                grace = self.new_grace()
                continue
            try:
                await grace.hold_on(failed)
            except StoreGone as gone:
                for journal in list(self._dirty):
                    journal.fail(gone)
                self._dirty.clear()

    def _gather(self) -> list[tuple[Journal, Append]]:
        """The next pipeline. What does not fit is left for the one after it."""
        batch, size = [], 0
        for journal in list(self._dirty):
            if size > COMMIT_BYTES:
                break
            del self._dirty[journal]
            if journal.dirty:
                size += journal.pending_bytes
                batch.append((journal, journal.take()))
        if not self._dirty:
            self._any.clear()
            self._urgent.clear()
        return batch

    async def _commit(self, batch: list[tuple[Journal, Append]]) -> StoreError | None:
        """Send a pipeline; returns why some of it has to be sent again."""
        if not batch:
            return None
        try:
            answers = await self.store.jobs.append_many([append for _, append in batch], self._lease_s)
        except StoreError as error:
            answers = [error] * len(batch)
        again: StoreError | None = None
        for (journal, append), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Step):
                journal.settle(append, answer)
            elif isinstance(answer, StoreUnavailable | StoreFull):
                again = answer
                journal.unsent()
                if journal.dirty:
                    self.notice(journal, urgent=False)
            else:
                log.error("append failed: %s", answer, extra={"response_id": append.lease.id})
                journal.fail(StoreGone(answer))
        return again


class Grace:
    """Patience with a store that is away: backs off with jitter, and ends after `store_grace_s`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._pause_s = 0.05

    async def hold_on(self, error: StoreError) -> None:
        """Wait a little.

        Raises:
            StoreGone: the time is over

        """
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
            log.warning("store is away, holding on for up to %.0f s: %s", self._seconds, error)
        if now - self._since >= self._seconds:
            raise StoreGone(error) from error
        await asyncio.sleep(random.uniform(self._pause_s / 2, self._pause_s))  # noqa: S311
        self._pause_s = min(1.0, self._pause_s * 2)
