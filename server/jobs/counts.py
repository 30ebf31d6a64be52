"""How many jobs there are, what is late, and how full the store is, as the store said a moment ago."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from storage import Counts, Store, StoreError

KEPT_S = 5.0
"""How old they may be: several who ask then cost the store no more than one."""
WITHIN_S = 2.0
"""How long the store is waited for."""


class JobCounts:
    """The counts of all replicas."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: Counts | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def now(self) -> Counts | None:
        """The counts, up to `KEPT_S` old; None while the store is away."""
        async with self._asking:
            if time.monotonic() >= self._until:
                try:
                    async with asyncio.timeout(WITHIN_S):
                        self._counts = await _asked(self._store)
                except (StoreError, TimeoutError):
                    self._counts = None
                self._until = time.monotonic() + KEPT_S
            return self._counts


async def _asked(store: Store) -> Counts:
    counts, room = await asyncio.gather(store.jobs.count(), store.room())
    return replace(counts, memory_bytes=room.used_bytes, memory_limit_bytes=room.limit_bytes)
