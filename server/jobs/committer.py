"""The group commit of one process: at intervals, it stores together what all journals have gathered.

The store then sees a few large calls, however many jobs there are. If it is slow, the calls become larger, while their
number does not grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from server.jobs.journal import Journal, StoreGone
from server.metrics import SILENT, Metrics
from storage import Append, Finish, Lease, Outcome, Step, Store, StoreError, StoreFull, StoreUnavailable

log = logging.getLogger("pollux.jobs")

T = TypeVar("T")

INTERVAL_S = 0.04
"""The shortest rest between two commits of a lane: too short for a reader to notice. With 20 ms, an event that comes
alone costs 7 % more."""
PER_APPEND_S = 0.0002
"""The rest is this long for each batch that was just stored: a thousand running jobs are stored five times a second."""
LONGEST_REST_S = 0.5
FRESH_S = 1.0
"""Commits longer ago than this don't count as load."""
ALL_PENDING_BYTES = 256 * 1024 * 1024
"""How much all journals of the process may hold together while the store is slow or away: a thousand runs of 4 MB each
would need more memory than a process has. Beyond it, runs with unstored events stop reading: their providers wait."""
COMMIT_BYTES = 4 * 1024 * 1024
COMMIT_APPENDS = 256
"""The most that one call carries: the server would run a larger one for so long that all other commands wait."""


class Committer:
    """Has one lane for each shard. Journals are stored only while `run` is running."""

    def __init__(self, store: Store, *, lease_s: float, store_grace_s: float, metrics: Metrics = SILENT) -> None:
        self._store = store
        self.metrics = metrics
        self._store_grace_s = store_grace_s
        self._lanes = {shard: _Lane(self, store, lease_s) for shard in store.jobs.shards}
        self._passes: dict[_Lane, tuple[float, int]] = {}
        """For each lane, when its last pass ended, and how many batches that pass stored."""
        self._pace_s = self._paced_until = 0.0
        self._pending_bytes = 0

    def hold(self, more_bytes: int) -> None:
        self._pending_bytes += more_bytes

    @property
    def crowded(self) -> bool:
        return self._pending_bytes > ALL_PENDING_BYTES

    def open(self, lease: Lease, on_lost: Callable[[Outcome], None]) -> Journal:
        """Open the journal of a leased job. `on_lost` is called if the store says that the lease is no longer ours."""
        return Journal(self._lanes[self._store.jobs.shards.of(lease.id)], lease, on_lost)

    def new_grace(self) -> Grace:
        return Grace(self._store_grace_s)

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Call `ask` until the store answers, for `store_grace_s` at most.

        Raises:
            StoreGone
        """
        grace = self.new_grace()
        while True:
            try:
                return await ask()
            except StoreUnavailable as error:
                await grace.hold_on(error)

    @property
    def pace_s(self) -> float:
        """How long a run should let the provider's events gather before it reads on: 0 unless there are many runs."""
        return self._pace_s if asyncio.get_running_loop().time() < self._paced_until else 0.0

    def rest_s(self, lane: _Lane, appends: int) -> float:
        """How long a lane rests after it has stored `appends` batches. The more all lanes store, the longer."""
        now = asyncio.get_running_loop().time()
        self._passes[lane] = now, appends
        lately = sum(count for at, count in self._passes.values() if now - at < FRESH_S)
        rest_s = min(LONGEST_REST_S, max(INTERVAL_S, PER_APPEND_S * lately))
        self._pace_s, self._paced_until = (rest_s if rest_s > INTERVAL_S else 0.0), now + rest_s + FRESH_S
        return rest_s

    async def run(self) -> None:
        """Commit until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes.values():
                group.create_task(lane.run(), name="commit")


class _Lane:
    """The group commit of one shard. If the shard is away, only its own journals have to wait."""

    def __init__(self, committer: Committer, store: Store, lease_s: float) -> None:
        self._committer = committer
        self._store = store
        self._lease_s = lease_s
        self._dirty: dict[Journal, None] = {}
        self._urgent: dict[Journal, None] = {}
        """The dirty journals that are stored even while the lane rests."""
        self._any = asyncio.Event()
        self._hurry = asyncio.Event()
        self._rest_until = 0.0
        self._grace = committer.new_grace()

    @property
    def pace_s(self) -> float:
        return self._committer.pace_s

    def hold(self, more_bytes: int) -> None:
        self._committer.hold(more_bytes)

    @property
    def crowded(self) -> bool:
        return self._committer.crowded

    def notice(self, journal: Journal, *, urgent: bool) -> None:
        self._dirty[journal] = None
        self._any.set()
        if urgent:
            self._urgent[journal] = None
            self._hurry.set()

    async def finish(self, finish: Finish) -> Step:
        step = await self._committer.patiently(lambda: self._store.jobs.finish(finish))
        if step.outcome is Outcome.OK:
            self._committer.metrics.events_written(finish.append.last - finish.append.first + 1)
        return step

    async def run(self) -> None:
        """Until cancelled, store all dirty journals in one pass, then rest."""
        while True:
            await self._any.wait()
            await self._rest()
            appends = left = len(self._dirty)
            while left > 0 and self._dirty:
                batch, passed = self._gather(self._dirty, left)
                left -= passed
                await self._commit(batch)
            self._rest_until = asyncio.get_running_loop().time() + self._committer.rest_s(self, appends)

    async def _rest(self) -> None:
        """Wait until the rest is over, and store only urgent journals meanwhile."""
        loop = asyncio.get_running_loop()
        while loop.time() < self._rest_until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._rest_until):
                    await self._hurry.wait()
            if self._urgent:
                batch, _ = self._gather(self._urgent, COMMIT_APPENDS)
                await self._commit(batch)

    def _gather(self, journals: dict[Journal, None], most: int) -> tuple[list[tuple[Journal, Append]], int]:
        """Gather the appends of the next call; what does not fit is left for a later one.

        Returns them, and how many journals were looked at: some may have nothing to store any more.
        """
        batch: list[tuple[Journal, Append]] = []
        taken: list[Journal] = []
        size = 0
        for journal in journals:
            if size > COMMIT_BYTES or len(taken) == min(most, COMMIT_APPENDS):
                break
            taken.append(journal)
            if journal.dirty:
                size += journal.pending_bytes
                batch.append((journal, journal.take()))
        self._forget(taken)
        return batch, len(taken)

    def _forget(self, journals: list[Journal]) -> None:
        for journal in journals:
            self._dirty.pop(journal, None)
            self._urgent.pop(journal, None)
        if not self._dirty:
            self._any.clear()
        if not self._urgent:
            self._hurry.clear()

    async def _commit(self, batch: list[tuple[Journal, Append]]) -> None:
        """Store the batches of several journals in one call. If the store is away, wait before the next try."""
        failed = await self._try(batch) if batch else None
        if failed is None:
            self._grace = self._committer.new_grace()
            return
        try:
            await self._grace.hold_on(failed)
        except StoreGone as gone:
            for journal in self._dirty:
                journal.fail(gone)
            self._forget(list(self._dirty))

    async def _try(self, batch: list[tuple[Journal, Append]]) -> StoreError | None:
        """Store the batches. Returns the error because of which some must be sent again, or None."""
        began = time.perf_counter()
        try:
            answers = await self._store.jobs.append_many([append for _, append in batch], self._lease_s)
        except StoreError as error:
            answers = [error] * len(batch)
        self._tell(batch, answers, time.perf_counter() - began)
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

    def _tell(self, batch: list[tuple[Journal, Append]], answers: Sequence[Step | StoreError], seconds: float) -> None:
        stored = [
            append
            for (_, append), answer in zip(batch, answers, strict=True)
            if isinstance(answer, Step) and answer.outcome is Outcome.OK
        ]
        if stored:
            metrics = self._committer.metrics
            metrics.events_written(sum(append.last - append.first + 1 for append in stored))
            metrics.flushed(sum(len(append.frames) for append in stored), seconds)


class Grace:
    """Patience with a store that is away: each pause is longer, with jitter, until `store_grace_s` are over."""

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
