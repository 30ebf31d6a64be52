"""Leasing from one shard: when to ask it, and when not to take what belongs to somebody else."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

from storage import Lease, Shard, Store, StoreError

log = logging.getLogger("pollux.jobs")


class Leaser:
    """Takes jobs of one shard, one at a time."""

    def __init__(self, store: Store, shard: Shard, *, lease_s: float, max_attempts: int, max_age_s: float) -> None:
        self._store = store
        self._shard = shard
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._max_age_s = max_age_s
        self.look = asyncio.Event()
        """There may be a job."""
        # Kept until it is answered: a call whose answer was lost is repeated, and gets the job that it got.
        self._token = uuid4().hex
        # After an outage nobody is reclaimed before a whole lease has passed: all renewals failed alike. Nor after
        # our own start, which may come right after one.
        self._reclaim_from = asyncio.get_running_loop().time() + lease_s
        self._away = False

    async def take(self) -> Lease | None:
        """A job, or None where there is none, or the shard is away."""
        now = asyncio.get_running_loop().time
        try:
            lease = await self._store.jobs.lease(
                self._shard,
                self._token,
                lease_s=self._lease_s,
                max_attempts=self._max_attempts,
                max_age_s=self._max_age_s,
                reclaim=not self._away and now() >= self._reclaim_from,
            )
        except StoreError as error:
            self.note_outage(error)
            return None
        self._token = uuid4().hex
        if self._away:
            self._away = False
            self._reclaim_from = now() + self._lease_s
            log.info("the store is back", extra={"shard": self._shard.n})
        return lease

    def note_outage(self, error: StoreError) -> None:
        """The store did not answer, here or to a renewal."""
        if not self._away:
            log.warning("the store is away: %s", error, extra={"shard": self._shard.n})
        self._away = True
