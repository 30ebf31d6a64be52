"""Cancelling providers' own background runs: durably, by whichever process is there.

What is to be cancelled stands in the store, written by the very step that ended the response. Any process takes it from
there, tells the provider, and strikes it off when the provider knows; who dies on the way leaves it to the next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from server.errors import PolluxError
from server.upstream.client import Call, Upstream
from server.upstream.deployments import Deployments
from server.upstream.refusals import is_passing
from storage import Shard, Store, StoreError, UpstreamCancel

log = logging.getLogger("pollux.jobs")

LOOK_S = 1.0
CLAIM_S = 30.0
"""For so long a claimed one is not tried again: longer than a provider takes to answer."""
AT_ONCE = 16
GIVE_UP_S = 24 * 3600.0
"""A provider's run does not last longer."""


@dataclass(frozen=True)
class UpstreamCancels:
    """Tells providers which of their runs nobody wants any more."""

    store: Store
    upstream: Upstream
    deployments: Deployments

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.gather(*(self._run_once(shard) for shard in self.store.jobs.shards))

    async def _run_once(self, shard: Shard) -> None:
        try:
            due = await self.store.jobs.claim_cancels(shard, AT_ONCE, CLAIM_S)
            told = await asyncio.gather(*(self._tell(cancel) for cancel in due))
            for cancel, settled in zip(due, told, strict=True):
                if settled:
                    await self.store.jobs.settle_cancel(shard, cancel)
        except StoreError as error:
            log.debug("upstream cancels put off: %s", error)

    async def _tell(self, cancel: UpstreamCancel) -> bool:
        """Whether the matter is settled: told, or never to be."""
        fields = {"deployment": cancel.deployment[:16], "provider_id": cancel.provider_id}
        deployment = self.deployments.get(cancel.deployment)
        if deployment is None or time.time() - cancel.since_ms / 1000 > GIVE_UP_S:
            log.warning("upstream run not cancelled: its deployment is gone, or it is too old", extra=fields)
            return True
        try:
            async with self.upstream.open(deployment, Call("POST", (cancel.provider_id, "cancel"))) as answer:
                await answer.body()
        except PolluxError as error:
            # Refused for good: it has ended by itself, or is unknown there.
            return not is_passing(error)
        log.info("upstream run cancelled", extra=fields)
        return True
