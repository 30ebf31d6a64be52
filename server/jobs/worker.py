"""The worker: leases jobs, renews the leases, stops runs whose lease is lost, and hands over what it can't finish.

It knows neither providers nor events: the given `run` does the work of a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from server.jobs.journal import Lost, StoreGone, Unservable
from server.jobs.leaser import Leaser, Leasing
from server.logs import bind
from server.metrics import SILENT, Metrics
from server.protocol.kept_headers import kept_headers
from server.protocol.lifecycle import Status
from server.protocol.status_events import event_of
from server.tracing import UNTRACED, Span, Tracing, current_span
from storage import Lease, Outcome, Shard, Store, StoreError

log = logging.getLogger("pollux.jobs")

UNSERVABLE_PAUSE_S = 2.0
"""After a job of a model that this config does not know, jobs of that model are left to other workers for this time."""
MOST_PAUSED = 64
"""How many models are left to others at once; beyond that, the one that was paused first is taken again."""
IDLE_S = 1.0
"""How often an idle worker looks for jobs even without a wake notification, because one may get lost."""

RunJob = Callable[[Lease, Callable[[Outcome], None]], Awaitable[Status]]


@dataclass
class _Active:
    """One run of this process."""

    lease: Lease
    leaser: Leaser
    """The leaser of its shard."""
    task: asyncio.Task[None] | None = None
    begun: bool = False
    stopped: str | None = None
    """Why it was stopped, if it was."""
    over_since_renewal: bool = False
    """The last renewal found that the response had ended. This run may have ended it, and not have the answer yet."""

    def stop(self, why: str) -> None:
        if self.stopped is not None or self.task is None:
            return
        self.stopped = why
        # A task that is cancelled before its first step never runs, not even its `finally`; `_work` looks at `stopped`.
        if self.begun:
            self.task.cancel()


class Worker:
    """Leases and runs the jobs of one process."""

    def __init__(
        self,
        store: Store,
        run: RunJob,
        leasing: Leasing,
        *,
        concurrency: int,
        metrics: Metrics = SILENT,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._store = store
        self._run_job = run
        self._metrics = metrics
        self._tracing = tracing
        self._lease_s = leasing.lease_s
        self._leasers = {
            shard: Leaser(store, shard, leasing, metrics=metrics) for shard in store.jobs.shards if concurrency
        }
        self._places = asyncio.Semaphore(concurrency)
        """One place for each run, taken before its lease. The leaser that waited longest is next: no shard starves."""
        self._active: dict[str, _Active] = {}
        self._draining = False
        self._paused: dict[str, float] = {}
        """Models that no deployment here serves, and until when their jobs are left to other workers."""

    @property
    def active(self) -> int:
        return len(self._active)

    def wake(self, shard: Shard) -> None:
        """Look for a job in this shard."""
        if leaser := self._leasers.get(shard):
            leaser.look.set()

    def revoked(self, response_id: str) -> None:
        """Stop the run of this response, if it is one of ours: the response was cancelled or deleted."""
        if active := self._active.get(response_id):
            active.stop("revoked")

    async def run(self) -> None:
        """Lease and run jobs until drained."""
        async with asyncio.TaskGroup() as group:
            for leaser in self._leasers.values():
                group.create_task(self._run_all_of(leaser), name="leases")

    async def _run_all_of(self, leaser: Leaser) -> None:
        while not self._draining:
            leaser.look.clear()
            await self._places.acquire()
            lease = await self._lease_from(leaser)
            if lease is not None:
                await self._take_on(lease, leaser)
                continue
            self._places.release()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await leaser.look.wait()

    async def _lease_from(self, leaser: Leaser) -> Lease | None:
        # The drain may have begun while we waited for a place.
        return None if self._draining else await leaser.take(self._paused_models())

    def _paused_models(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        self._paused = {model: until for model, until in self._paused.items() if until > now}
        return list(self._paused)

    def _pause(self, model: str) -> None:
        if len(self._paused) >= MOST_PAUSED:
            del self._paused[next(iter(self._paused))]
        self._paused[model] = asyncio.get_running_loop().time() + UNSERVABLE_PAUSE_S

    async def renew(self) -> None:
        """Renew the leases of all runs until cancelled. Each shard has its own task: one may be silent for seconds."""
        async with asyncio.TaskGroup() as group:
            for leaser in self._leasers.values():
                group.create_task(self._renew_all_of(leaser), name="renewals")

    async def _renew_all_of(self, leaser: Leaser) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held = [active.lease for active in self._active.values() if active.leaser is leaser]
            if not held:
                continue
            outcomes = await self._store.jobs.renew(held, self._lease_s)
            for lease, outcome in zip(held, outcomes, strict=True):
                if isinstance(outcome, StoreError):
                    leaser.note_outage(outcome)
                elif outcome is Outcome.OVER and self._grant_a_round(lease):
                    continue
                elif outcome is not Outcome.OK:
                    self._lose(lease, outcome)

    async def drain(self, patience_s: float, hurry: asyncio.Event | None = None) -> None:
        """Take no more jobs, let runs end for `patience_s` or until `hurry`, then release the jobs that are left."""
        self._draining = True
        for leaser in self._leasers.values():
            leaser.look.set()
            self._places.release()  # so that a leaser that waits for a place wakes and sees the drain
        if self._active and patience_s > 0:
            log.info("draining %d runs for up to %.0f s", len(self._active), patience_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._until_idle(hurry or asyncio.Event())
        left = list(self._active.values())
        for active in left:
            active.stop("draining")
        if left:
            await asyncio.wait([active.task for active in left if active.task is not None])

    async def _until_idle(self, hurry: asyncio.Event) -> None:
        tasks = [active.task for active in self._active.values() if active.task is not None]
        hurried = asyncio.create_task(hurry.wait(), name="hurry")
        try:
            while tasks and not hurried.done():
                await asyncio.wait([*tasks, hurried], return_when=asyncio.FIRST_COMPLETED)
                tasks = [task for task in tasks if not task.done()]
        finally:
            hurried.cancel()

    def _grant_a_round(self, lease: Lease) -> bool:
        """Let a run whose response has ended go on until the next renewal, so that it can hear of the end by itself.

        Returns False if it has had that time already.
        """
        active = self._active.get(lease.id)
        if active is None or active.over_since_renewal:
            return False
        active.over_since_renewal = True
        return True

    def _lose(self, lease: Lease, outcome: Outcome) -> None:
        active = self._active.get(lease.id)
        if active is not None and active.lease.token == lease.token:
            active.stop(outcome)

    async def _take_on(self, lease: Lease, leaser: Leaser) -> None:
        """Begin the run of a leased job. The run keeps its place until it has ended."""
        if self._draining:  # the drain began while we asked for the job
            await self._release(lease)
            self._places.release()
            return
        if previous := self._active.get(lease.id):
            # This process stood still, the lease ran out, and now we have leased the same job again.
            previous.stop(Outcome.STALE)
        active = _Active(lease, leaser)
        self._active[lease.id] = active
        active.task = asyncio.create_task(self._work(active), name=f"run {lease.id}")

    async def _work(self, active: _Active) -> None:
        """Run a job, in a task of its own, as a part of the trace in which it was created."""
        active.begun = True
        lease = active.lease
        bind(response_id=lease.id, **({"request_id": lease.request_id} if lease.request_id else {}))
        headers = kept_headers(lease.headers)
        with self._tracing.running(lease.id, lease.model, lease.owner, lease.attempt, headers) as span:
            await self._run_to_outcome(active, span)

    async def _run_to_outcome(self, active: _Active, span: Span) -> None:
        """Run a job, and decide by its outcome whether to release it. Errors are logged here and go no further."""
        lease, outcome = active.lease, "stopped"
        began = time.perf_counter()
        self._metrics.run_began(lease.model)
        fields = {
            "response_id": lease.id,
            "model": lease.model,
            "attempt": lease.attempt,
            "owner": lease.owner,
        }
        try:
            await self._run_unless_stopped(active, fields)
            outcome = "ended"
        except asyncio.CancelledError:
            if active.stopped is None:
                raise
            log.info("run stopped", extra={**fields, "why": active.stopped})
            if active.stopped == "draining":
                outcome = "released"
                await self._release(lease)
        except Lost as lost:
            log.info("run stopped", extra={**fields, "why": str(lost)})
        except Unservable:
            outcome = "unservable"
            log.warning("no deployment serves this job here, handing it back", extra=fields)
            self._pause(lease.model)
            await self._release(lease, attempted=True)
        except StoreGone as gone:
            outcome = "store_gone"
            log.warning("run given up, the store is away: %s", gone, extra=fields)
        except Exception:
            # A bug of ours. The lease is left to run out, so that the job is tried again, at most `max_attempts` times.
            outcome = "broke"
            span.failed(outcome)
            log.exception("run broke", extra=fields)
        finally:
            span.note(run_outcome=outcome)
            self._metrics.run_ended(lease.model, outcome, time.perf_counter() - began, lease.attempt)
            if self._active.get(lease.id) is active:
                del self._active[lease.id]
            self._places.release()

    async def _run_unless_stopped(self, active: _Active, fields: dict[str, Any]) -> None:
        if active.stopped is not None:
            raise asyncio.CancelledError  # stopped before its first step
        log.info("response started", extra=fields)
        status = await self._run_job(active.lease, lambda outcome: self._lose(active.lease, outcome))
        current_span().note(response_status=status)
        self._metrics.response_ended(active.lease.model, status)
        log.info("response ended", extra={**fields, "status": status, "event": event_of(status, active.lease.id)})

    async def _release(self, lease: Lease, *, attempted: bool = False) -> None:
        try:
            await self._store.jobs.release(lease, attempted=attempted)
        except StoreError as error:
            log.warning("not released, its lease will run out: %s", error, extra={"response_id": lease.id})
