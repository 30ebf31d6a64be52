"""What responses use: read from their objects, and for those that only pass through gathered here and stored together.

What a cached response has used is not counted here: it is counted by the step in the store that ends it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from datetime import date
from typing import Any

from server.protocol.tokens import tokens_in
from server.upstream.deployments import Deployment
from storage import Counted, Spent, Store, StoreError, StoreFull, StoreUnavailable, by_shard, today

log = logging.getLogger("pollux.usage")

EVERY_S = 1.0
"""How often what was gathered is stored. A process that is killed loses so much of what has passed through it."""
LAST_S = 2.0
"""How long the last store may take when the process ends."""
AT_ONCE = 256
"""The most counts of one call: the server would run more of them for so long that all other commands wait."""
MOST_WAITING = 20_000
"""The most native responses that wait to be stored while the store is away. Further ones are not counted."""
MOST_KNOWN = 4096
"""How many native responses a process remembers as counted, to spare the store the question."""
COUNTED_WITHIN_S = 7 * 86400
"""A native response is counted if its end is seen within this time of its creation."""
ONCE_S = COUNTED_WITHIN_S + 86400
"""How long the store knows which native responses were counted. Later, `COUNTED_WITHIN_S` keeps them from it."""
REPEATED_S = 900
"""How long the store knows other counts, of which only a call that is repeated brings one twice."""


def spent_on(deployment: Deployment, response: dict[str, Any]) -> Spent | None:
    """What one response has used, as its object tells; None if it does not tell."""
    tokens = tokens_in(response)
    if tokens is None:
        return None
    cost = deployment.price.of(tokens) if deployment.price else None
    return Spent(deployment.model_name, 1, *tokens, cost)


class Meter:
    """Counts what passes through one process. Counting neither waits nor fails; `run` stores it, and may lose it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sums: dict[tuple[str, date, str], Spent] = {}
        """By owner, day and model: there are only so many of them."""
        self._natives: dict[str, Counted] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._batch: list[Counted] = []
        """What is being stored. If the outcome is unknown, it is sent again under the same tokens."""
        self._any = asyncio.Event()

    def count(self, owner: str, spent: Spent) -> None:
        """Count what a response has used that passes through once only."""
        key = (owner, today(), spent.model)
        known = self._sums.get(key)
        self._sums[key] = known + spent if known else spent
        self._any.set()

    def count_native(self, owner: str, spent: Spent, provider_id: tuple[str, str], created_at: object) -> None:
        """Count what a native response has used, once however often its end passes through any process.

        `provider_id`: the deployment's id and the provider's.
        """
        if isinstance(created_at, int | float) and time.time() - created_at > COUNTED_WITHIN_S:
            return
        token = hashlib.sha256("\n".join(provider_id).encode()).hexdigest()[:32]
        if token in self._known:
            return
        if len(self._natives) >= MOST_WAITING:
            log.warning("the usage of a response of %s is not counted, the store is away", owner)
            return
        self._known[token] = None
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        self._natives[token] = Counted(owner, today(), spent, token, ONCE_S)
        self._any.set()

    async def run(self) -> None:
        """Store what was gathered, until cancelled; and then once more."""
        try:
            while True:
                await self._any.wait()
                await asyncio.sleep(EVERY_S)
                await self._store_all()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_S):
                    await self._store_all()

    async def _store_all(self) -> None:
        self._batch = self._batch or self._take()
        shard_of = self._store.usage.shards.of
        for shard, counts in by_shard(self._batch, lambda one: shard_of(one.owner)).items():
            for place in range(0, len(counts), AT_ONCE):
                some = counts[place : place + AT_ONCE]
                try:
                    await self._store.usage.count(shard, some)
                except (StoreUnavailable, StoreFull) as error:
                    log.debug("usage is stored later: %s", error)
                    continue
                except StoreError as error:
                    log.error("the usage of %d responses is lost: %s", len(some), error)  # noqa: TRY400
                stored = {one.token for one in some}
                self._batch = [one for one in self._batch if one.token not in stored]
        if not (self._batch or self._sums or self._natives):
            self._any.clear()

    def _take(self) -> list[Counted]:
        sums, self._sums = self._sums, {}
        natives, self._natives = self._natives, {}
        passed = [
            Counted(owner, day, spent, secrets.token_hex(8), REPEATED_S) for (owner, day, _), spent in sums.items()
        ]
        return [*passed, *natives.values()]
