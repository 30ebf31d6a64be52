"""The tries of one request: which deployment comes next, and after which pause."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from server.errors import PolluxError, shown
from server.protocol.reasons import Remedy, without_secrets
from server.upstream.deployments import Deployment
from server.upstream.health import Health
from server.upstream.refusals import facts_of, remedy_of, retry_after_of

log = logging.getLogger("pollux.upstream")

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 8.0


def always(_error: PolluxError) -> bool:
    """Every error may pass."""
    return True


class Tries:
    """Exponential backoff with full jitter. A healthy deployment that was not tried yet is preferred.

    An upstream's `retry-after` replaces the backoff if no other deployment is healthy.
    """

    def __init__(
        self,
        health: Health,
        deployments: Sequence[Deployment],
        num_retries: int,
        *,
        wished: int | None = None,
        patience_s: float | None = None,
    ) -> None:
        """`wished`: the retries that the request asks for itself, whatever the config says."""
        self._health = health
        self._deployments = deployments
        self._left = num_retries if wished is None else wished
        self._settled = wished is not None
        self._patience_s = patience_s
        self._tried: list[str] = []
        self._made = 0

    @property
    def last(self) -> str | None:
        """The id of the deployment that was tried last."""
        return self._tried[-1] if self._tried else None

    def place(self) -> AbstractAsyncContextManager[Deployment]:
        """The deployment to try now, with a place for one call on it during the block.

        Raises:
            RateLimited: all deployments stayed full for `patience_s`

        """
        return self._health.place(self._deployments, patience_s=self._patience_s, tried=self._tried)

    async def again(self, error: PolluxError, repeatable: Callable[[PolluxError], bool] = always) -> None:
        """Wait until the next try. Raise the error if no try is left, none can help, or it is not `repeatable`."""
        remedy = remedy_of(error)
        self._heed_the_first()
        if self._left <= 0 or remedy is Remedy.NOTHING or not repeatable(error):
            raise error
        if remedy is Remedy.ELSEWHERE:
            self._leave_out(self._tried[-1:], error)
        elsewhere = self._elsewhere()
        asked_s = None if elsewhere else retry_after_of(error)
        ceiling_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**self._made)
        self._left -= 1
        self._made += 1
        pause_s = asked_s if asked_s is not None else random.uniform(0, ceiling_s)  # noqa: S311
        pause_s = pause_s if elsewhere else max(pause_s, self._health.least_pause_s)
        _log(error, self.last, pause_s)
        await asyncio.sleep(pause_s)

    def _heed_the_first(self) -> None:
        """Let the deployment that failed first say how many retries there are, unless the request itself did."""
        if self._settled or self._made or not self._tried:
            return
        first = next((made for made in self._deployments if made.id == self._tried[0]), None)
        if first is not None and first.num_retries is not None:
            self._left = first.num_retries

    def _leave_out(self, refusing: Sequence[str], error: PolluxError) -> None:
        """Exclude these deployments from further tries, or raise the error if none is left."""
        left = [deployment for deployment in self._deployments if deployment.id not in refusing]
        if not left:
            raise error
        self._deployments = left

    def _elsewhere(self) -> bool:
        """Whether a deployment other than the last one is healthy."""
        last = self._tried[-1:]
        return len(self._deployments) > 1 and any(
            self._health.is_healthy(deployment) for deployment in self._deployments if deployment.id not in last
        )


def _log(error: PolluxError, deployment: str | None, pause_s: float) -> None:
    fields = {"deployment": (deployment or "")[:16] or None, "code": error.code, "pause_s": round(pause_s, 3)}
    reason = {"reason": shown(without_secrets(error.message)), **facts_of(error)}
    log.info("a call to a provider failed, trying again", extra={**fields, **reason})
