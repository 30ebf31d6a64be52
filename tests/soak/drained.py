"""Whether all is as it was before the load, once it is over and what it stored has expired."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self

from tests.soak.samples import DESCRIPTORS, TASKS, kinds_in, of_replica
from tests.soak.stage import FEED_S, Stage
from tests.support.keys import leaked_keys

DRAINS_WITHIN_S = FEED_S + 45.0
"""Status events live longest; connections that are kept alive are closed before."""
POOLED = 40
"""Descriptors that stay: the pool of connections to the store, see `POOL_SIZE`, and a few more that are opened late."""
LOOKS = 8
"""Tasks that may be under way at any moment in an idle replica, beyond those of the first look."""
STAYING = frozenset(
    {
        *("settings", "rotation", "owned", "owners", "ended", "usage", "usage_owners", "delivered", "delivery"),
        *("health", "processes", "tally"),
    }
)
"""Kinds of keys that live longer than responses and status events: a few for each owner, endpoint or minute."""
EVERY_S = 2.0


@dataclass(frozen=True)
class Base:
    """What there was before the load."""

    replicas: list[dict[str, float]]

    @classmethod
    async def of(cls, stage: Stage) -> Self:
        return cls([await of_replica(replica) for replica in stage.replicas])


async def left_after(stage: Stage, base: Base) -> AsyncIterator[str]:
    """All that is left too long after the load, in words."""
    deadline = time.monotonic() + DRAINS_WITHIN_S
    while (left := await _left(stage, base)) and time.monotonic() < deadline:
        await asyncio.sleep(EVERY_S)
    for one in left:
        yield f"not gone {DRAINS_WITHIN_S:.0f} s after the load: {one}"
    for key in await asyncio.to_thread(leaked_keys, stage.store):
        yield f"the key {key} has no time to live"


async def _left(stage: Stage, base: Base) -> list[str]:
    left = []
    for number, (replica, before) in enumerate(zip(stage.replicas, base.replicas, strict=True), 1):
        now = await of_replica(replica)
        for what, more in ((TASKS, LOOKS), (DESCRIPTORS, POOLED)):
            if now[what] > before[what] + more:
                left.append(f"replica {number} has {now[what]:.0f} {what}, {before[what]:.0f} before")
    kinds: Counter[str] = await asyncio.to_thread(kinds_in, stage.store)
    left += [f"{count} keys of the kind {kind}" for kind, count in kinds.items() if kind not in STAYING]
    return left
