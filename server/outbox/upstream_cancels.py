"""Cancelling providers' own background runs, durably and by any process.

The step that ends a response also writes the upstream cancel into the store. Any process takes it from there, tells the
provider, and then removes it. If that process dies on the way, the cancel becomes due again for another one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.errors import PolluxError
from server.upstream.call import Call
from server.upstream.client import Upstream
from server.upstream.deployments import Deployments
from server.upstream.refusals import is_passing
from storage import Shard, Store, StoreError, UpstreamCancel

log = logging.getLogger("pollux.outbox")

LOOK_S = 1.0
CLAIM_S = 30.0
"""A claimed cancel is not tried again for this time, which is longer than a provider takes to answer."""
AT_ONCE = 16
GIVE_UP_S = 24 * 3600.0
"""A cancel is given up after this time, because no provider's run lasts longer."""


@dataclass(frozen=True)
class UpstreamCancels:
    """Tells providers which of their runs are no longer wanted."""

    store: Store
    upstream: Upstream
    deployments: Callable[[], Deployments]
    """Those of the newest config."""

    async def run(self) -> None:
        """Send upstream cancels until this task is cancelled."""
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
        """Tell the provider. Returns whether the cancel is settled: it worked, or trying again would not help."""
        fields = {"deployment": cancel.deployment[:16], "provider_id": cancel.provider_id}
        deployment = self.deployments().get(cancel.deployment)
        if deployment is None or time.time() - cancel.since_ms / 1000 > GIVE_UP_S:
            log.warning("upstream run not cancelled: its deployment is gone, or it is too old", extra=fields)
            return True
        try:
            async with self.upstream.open(deployment, Call("POST", (cancel.provider_id, "cancel"))) as answer:
                await answer.json()
        except PolluxError as error:
            # A refusal for good means that the run has ended, or that the provider does not know it.
            return not is_passing(error)
        log.info("upstream run cancelled", extra=fields)
        return True
