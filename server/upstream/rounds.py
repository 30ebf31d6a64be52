"""The rounds of one request: the tries on its model, and then on those that it falls back to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from server.errors import PolluxError, UpstreamUnavailable, shown
from server.protocol.fallbacks import Walk
from server.protocol.reasons import without_secrets
from server.upstream.deployments import Deployment
from server.upstream.health import Health
from server.upstream.refusals import cause_of, facts_of
from server.upstream.tries import Tries, always

log = logging.getLogger("pollux.upstream")


class Rounds:
    """Each model has its tries. If they were in vain, the next one has its own; in the end the first error counts.

    A model whose deployments all cool down is passed over while a healthy one is ahead.
    """

    def __init__(
        self,
        health: Health,
        walk: Walk,
        deployments_of: Callable[[str], Sequence[Deployment]],
        num_retries: int,
        *,
        wished: int | None = None,
        patience_s: float | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """`deployments_of` may raise a `PolluxError`, as if they had been asked and refused.

        `wished` and `patience_s` are those of `Tries`; `about` says in the log which request this is.
        """
        self._health = health
        self._walk = walk
        self._deployments_of = deployments_of
        self._num_retries, self._wished, self._patience_s = num_retries, wished, patience_s
        self._about = dict(about or {})
        self._first: tuple[PolluxError, str | None] | None = None
        """The error of the first model, and the deployment that made it."""
        self._begin()

    @property
    def model(self) -> str:
        """The model that is asked now."""
        return self._walk.model

    @property
    def fallbacks(self) -> int:
        """How many fallbacks have led to it."""
        return self._walk.depth

    @property
    def blamed(self) -> str | None:
        """The id of the deployment whose error counts."""
        return self._first[1] if self._first else self._tries.last

    def place(self) -> AbstractAsyncContextManager[Deployment]:
        """The deployment to try now, with a place for one call on it during the block.

        Raises:
            RateLimited: all deployments stayed full for `patience_s`
            PolluxError: the present model has no deployment to try

        """
        if self._refusal is not None:
            raise self._refusal
        return self._tries.place()

    async def again(self, error: PolluxError, repeatable: Callable[[PolluxError], bool] = always) -> None:
        """Wait until the next try, or go on with the next model. If there is none, raise the first one's error.

        `repeatable`: whether the same model may be tried again after an error. Another one may be after any.
        """
        try:
            await self._tries.again(error, repeatable)
        except PolluxError as final:
            self._fall_back(final)

    def may_go_on(self, error: PolluxError) -> bool:
        """Whether another model comes after this error."""
        return bool(self._walk.ahead(cause_of(error)))

    def _fall_back(self, error: PolluxError) -> None:
        self._first = self._first or (error, self._tries.last)
        failed = self.model
        if self._walk.after(cause_of(error)) is None:
            raise self._first[0]
        told = {"model": shown(failed), "next": shown(self.model), "deployment": (self._tries.last or "")[:16] or None}
        reason = {"code": error.code, "reason": shown(without_secrets(error.message)), **facts_of(error)}
        log.warning("a model failed, the request falls back", extra={**self._about, **told, **reason})
        self._begin()

    def _begin(self) -> None:
        """Begin the round of the present model."""
        self._refusal: PolluxError | None = None
        deployments: Sequence[Deployment] = ()
        try:
            deployments = self._deployments_of(self.model)
        except PolluxError as error:
            self._refusal = error
        else:
            if not self._is_fit(deployments) and any(map(self._has_fit, self._walk.ahead())):
                text = f"The deployments of the model '{shown(self.model)}' failed just now, and were not asked again."
                self._refusal = UpstreamUnavailable(text)
        if self._refusal is None:
            self._tries = Tries(
                self._health, deployments, self._num_retries, wished=self._wished, patience_s=self._patience_s
            )
        else:
            self._tries = Tries(self._health, (), 0)

    def _has_fit(self, model: str) -> bool:
        try:
            return self._is_fit(self._deployments_of(model))
        except PolluxError:
            return False

    def _is_fit(self, deployments: Sequence[Deployment]) -> bool:
        return any(map(self._health.is_healthy, deployments))
