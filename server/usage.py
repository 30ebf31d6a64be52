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
from datetime import date, timedelta
from typing import Any

from server.metrics import SILENT, Metrics
from server.protocol.tokens import Tokens, tokens_in
from server.upstream.deployments import Deployment
from storage import Counted, Spent, Store, StoreError, StoreFull, StoreUnavailable, by_shard, today

log = logging.getLogger("pollux.usage")

EPOCH, DAY_S = date(1970, 1, 1), 86400
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
COUNTED_WITHIN_S = 7 * DAY_S
"""A native response is counted if its end is seen within this time of its creation."""
ONCE_S = COUNTED_WITHIN_S + DAY_S
"""How long the store knows which native responses were counted. Later, `COUNTED_WITHIN_S` keeps them from it."""
REPEATED_S = 900
"""How long the store knows other counts, of which only a call that is repeated brings one twice."""


def spent_on(deployment: Deployment, response: dict[str, Any]) -> Spent | None:
    """What one response has used, as its object tells; None if it does not tell."""
    tokens = tokens_in(response)
    return None if tokens is None else _spent(deployment, 1, tokens)


def _spent(deployment: Deployment, requests: int, tokens: Tokens | None) -> Spent:
    if tokens is None:
        return Spent(deployment.model_name, requests)
    cost = deployment.price.of(tokens) if deployment.price else None
    return Spent(deployment.model_name, requests, *tokens, cost)


class _Sum:
    """What responses of one deployment have used together. Mutable, and priced at the end: most requests pass here."""

    __slots__ = ("cached", "deployment", "input", "output", "reasoning", "requests", "told")

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.requests = self.input = self.cached = self.output = self.reasoning = 0
        self.told = False
        """Whether a provider has told of any tokens."""

    def add(self, tokens: Tokens | None) -> None:
        self.requests += 1
        if tokens is not None:
            self.told = True
            self.input += tokens[0]
            self.cached += tokens[1]
            self.output += tokens[2]
            self.reasoning += tokens[3]

    @property
    def spent(self) -> Spent:
        tokens = Tokens(self.input, self.cached, self.output, self.reasoning) if self.told else None
        return _spent(self.deployment, self.requests, tokens)


class Meter:
    """Counts what passes through one process. Counting neither waits nor fails; `run` stores it, and may lose it."""

    def __init__(self, store: Store, metrics: Metrics = SILENT) -> None:
        self._store = store
        self._metrics = metrics
        self._sums: dict[tuple[str, str, int], _Sum] = {}
        """By owner, deployment and day: there are only so many of them."""
        self._natives: dict[str, Counted] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._batch: list[Counted] = []
        """What is being stored. If the outcome is unknown, it is sent again under the same tokens."""
        self._any = asyncio.Event()

    def count(self, owner: str, deployment: Deployment, tokens: Tokens | None) -> None:
        """Count what a response has used that passes through once only; None if its provider does not tell."""
        key = (owner, deployment.id, int(time.time() / DAY_S))
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = _Sum(deployment)
        found.add(tokens)
        if tokens is not None:
            self._metrics.tokens_spent(deployment.model_name, tokens)
        self._any.set()

    def count_native(
        self, owner: str, deployment: Deployment, tokens: Tokens | None, provider_id: str, created_at: object
    ) -> None:
        """Count what a native response has used, once however often its end passes through any process."""
        if isinstance(created_at, int | float) and time.time() - created_at > COUNTED_WITHIN_S:
            return
        token = hashlib.sha256(f"{deployment.id}\n{provider_id}".encode()).hexdigest()[:32]
        if token in self._known:
            return
        if len(self._natives) >= MOST_WAITING:
            log.warning("the usage of a response of %s is not counted, the store is away", owner)
            return
        self._known[token] = None
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        if tokens is not None:
            self._metrics.tokens_spent(deployment.model_name, tokens)
        self._natives[token] = Counted(owner, today(), _spent(deployment, 1, tokens), token, ONCE_S)
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
            Counted(owner, EPOCH + timedelta(days=day), found.spent, secrets.token_hex(8), REPEATED_S)
            for (owner, _, day), found in sums.items()
        ]
        return [*passed, *natives.values()]
