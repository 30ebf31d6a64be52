"""Leasing jobs from one shard, and deciding when a job whose lease ran out may be taken from its worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from uuid import uuid4

from server.metrics import SILENT, Metrics
from storage import Lease, Shard, Store, StoreError

log = logging.getLogger("pollux.jobs")

FRESH_MS = 4000
"""How long after its last answer we may assume that neither the server nor this process has stood still."""
MOST_CALLS = 3
"""How often one job is asked for. The second answer is not `stale`, unless the server stands still again."""


@dataclass(frozen=True, slots=True)
class Leasing:
    """On which terms a process leases jobs."""

    lease_s: float
    max_attempts: int
    max_age_s: float
    worker: str = ""
    """The name of the process, as the lives of its jobs tell it."""


class Reclaiming:
    """Decides whether we may reclaim a job whose lease ran out.

    A lease that ran out means a dead worker only if a living one could have renewed it. No worker could renew while the
    store was away, so nothing is reclaimed until a whole lease has passed since then. The same holds after our own
    start, because an outage may have ended just before. Nor could a worker renew while the server stood still, or
    while we did. So each call tells the server until when it may reclaim, counted from the server's clock in its last
    answer. If the server runs the call later, it takes nothing and the call is repeated at once; by then the server
    has also run the renewals of the living workers.
    """

    def __init__(self, lease_s: float, now: float) -> None:
        self._lease_s = lease_s
        self._from = now + lease_s
        self._answered_ms = 0
        self._away = False

    def until_ms(self, now: float) -> int:
        """Until when, on the server's clock, the next call may reclaim; 0: it may not."""
        if self._away or now < self._from:
            return 0
        return self._answered_ms + min(FRESH_MS, int(self._lease_s * 1000))

    def note_answer(self, at_ms: int, now: float) -> bool:
        """Note that the server answered. Returns whether it had been away."""
        self._answered_ms = at_ms
        was_away, self._away = self._away, False
        if was_away:
            self._from = now + self._lease_s
        return was_away

    def note_outage(self) -> bool:
        """Note that the server did not answer. Returns whether this outage is new."""
        was_away, self._away = self._away, True
        return not was_away


class Leaser:
    """Takes jobs of one shard, one at a time."""

    def __init__(
        self,
        store: Store,
        shard: Shard,
        leasing: Leasing,
        *,
        metrics: Metrics = SILENT,
    ) -> None:
        self._store = store
        self._shard = shard
        self._leasing = leasing
        self._metrics = metrics
        self.look = asyncio.Event()
        """Set when there may be a job."""
        # The token stays the same until a call is answered: if the answer is lost, the repeated call gets the same job.
        self._token = uuid4().hex
        self._reclaiming = Reclaiming(leasing.lease_s, asyncio.get_running_loop().time())

    async def take(self, passing_over: Collection[str] = ()) -> Lease | None:
        """Lease a job. Returns None if there is none, or if the shard is away.

        Jobs of the models in `passing_over` are left in the queue, but reclaimed if their leases ran out.
        """
        now = asyncio.get_running_loop().time
        for _ in range(MOST_CALLS):
            try:
                answer = await self._store.jobs.lease(
                    self._shard,
                    self._token,
                    worker=self._leasing.worker,
                    lease_s=self._leasing.lease_s,
                    max_attempts=self._leasing.max_attempts,
                    max_age_s=self._leasing.max_age_s,
                    reclaim_until_ms=self._reclaiming.until_ms(now()),
                    passing_over=passing_over,
                )
            except StoreError as error:
                self.note_outage(error)
                return None
            self._token = uuid4().hex
            if self._reclaiming.note_answer(answer.at_ms, now()):
                log.info("the store is back", extra={"shard": self._shard.n})
            for response_id in answer.set_aside:
                log.error("a record can't be read or ended, it is set aside", extra={"response_id": response_id})
            if answer.lease is not None:
                self._metrics.job_leased(answer.lease.model, answer.waited_s, reclaimed=answer.reclaimed)
            if not answer.stale:
                return answer.lease
        return None

    def note_outage(self, error: StoreError) -> None:
        """Note that the store did not answer a call to lease, or to renew."""
        if self._reclaiming.note_outage():
            log.warning("the store is away: %s", error, extra={"shard": self._shard.n})
