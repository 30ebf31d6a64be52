"""Leasing from one shard: when to ask it, and when not to take what belongs to somebody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from uuid import uuid4

from storage import Lease, Shard, Store, StoreError

log = logging.getLogger("pollux.jobs")

FRESH_MS = 4000
"""For so long an answer of the server vouches that it, and we, have not stood still."""
MOST_CALLS = 3
"""For one job: the second one is fresh, unless the server stands still again."""


class Reclaiming:
    """Whether we may take a job whose lease ran out: the one place where that is decided.

    A lease that ran out says that its worker is dead only if it could have been renewed. It could not while the store
    was away, so nobody is reclaimed before a whole lease has passed since then; nor after our own start, which may come
    right behind an outage. And it could not while the server stood still, or we did: so each call to the server says
    until when it may reclaim, by the server's own clock, which we know from its last answer. A call that runs later
    takes nothing, and is repeated at once; the renewals of all who live have had their turn by then.
    """

    def __init__(self, lease_s: float, now: float) -> None:
        self._lease_s = lease_s
        self._from = now + lease_s
        self._answered_ms = 0
        self._away = False

    def until_ms(self, now: float) -> int:
        """What the next call may: 0 for not at all."""
        if self._away or now < self._from:
            return 0
        return self._answered_ms + min(FRESH_MS, int(self._lease_s * 1000))

    def note_answer(self, at_ms: int, now: float) -> bool:
        """The server answered. Whether it had been away."""
        self._answered_ms = at_ms
        was_away, self._away = self._away, False
        if was_away:
            self._from = now + self._lease_s
        return was_away

    def note_outage(self) -> bool:
        """It did not. Whether that is news."""
        was_away, self._away = self._away, True
        return not was_away


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
        self._reclaiming = Reclaiming(lease_s, asyncio.get_running_loop().time())

    async def take(self, passing_over: Collection[str] = ()) -> Lease | None:
        """A job, or None where there is none, or the shard is away. Not of these models, unless it is reclaimed."""
        now = asyncio.get_running_loop().time
        for _ in range(MOST_CALLS):
            try:
                answer = await self._store.jobs.lease(
                    self._shard,
                    self._token,
                    lease_s=self._lease_s,
                    max_attempts=self._max_attempts,
                    max_age_s=self._max_age_s,
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
            if not answer.stale:
                return answer.lease
        return None

    def note_outage(self, error: StoreError) -> None:
        """The store did not answer, here or to a renewal."""
        if self._reclaiming.note_outage():
            log.warning("the store is away: %s", error, extra={"shard": self._shard.n})
