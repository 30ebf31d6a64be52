"""Tells the metrics and the trace of every call to a deployment: how it ended, and how long it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from time import perf_counter

import aiohttp

from server import tracing
from server.errors import PolluxError, UpstreamRefusal, UpstreamTimeout, UpstreamUnavailable
from server.metrics import Metrics
from server.tracing import UNTRACED, Span, Tracing
from server.upstream.answer import Answer
from server.upstream.call import Call
from server.upstream.client import Upstream
from server.upstream.deployments import Deployment
from server.upstream.grants import Grants
from server.upstream.health import Health
from server.upstream.lately import Lately


class CallOutcome(StrEnum):
    """How a call ended."""

    OK = "ok"
    REFUSED = "refused"
    LIMITED = "limited"
    FAILED = "failed"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    """The connection broke while the answer came."""
    ABANDONED = "abandoned"
    """The answer is not wanted any more: the client hung up, or the job is over."""


_FAILURES = frozenset(CallOutcome) - {CallOutcome.OK, CallOutcome.REFUSED, CallOutcome.ABANDONED}
"""A refusal concerns the request, and these concern the deployment."""


@dataclass(slots=True)
class _Watch:
    """The times of one call."""

    began: float
    first_s: float | None = None


class MeasuredUpstream(Upstream):
    """`Upstream`, and the metrics are told. A call that was never sent does not count.

    Each call has a span, whose context the deployment gets in the place of the client's.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        health: Health,
        grants: Grants,
        metrics: Metrics,
        tracing: Tracing = UNTRACED,
    ) -> None:
        super().__init__(session, health, grants)
        self._metrics = metrics
        self._tracing = tracing
        self.lately = Lately()

    @asynccontextmanager
    async def open(self, deployment: Deployment, call: Call) -> AsyncIterator[Answer]:
        """Make the call, see `Upstream.open`."""
        watch = _Watch(perf_counter())
        outcome: CallOutcome | None = CallOutcome.OK
        with self._tracing.calling(_told(deployment, call)) as span:
            if (headers := span.carried_by(call.headers)) is not call.headers:
                call = call._replace(headers=headers)
            try:
                async with super().open(deployment, call) as answer:
                    answer.span = span
                    span.answered(answer.status)
                    if call.stream:
                        answer.on_first_event = partial(self._tell_first, deployment, watch, span)
                    yield answer
            except PolluxError as error:
                outcome = outcome_of(error)
                _note_failure(span, error, outcome)
                raise
            except (Exception, asyncio.CancelledError, GeneratorExit):
                outcome = CallOutcome.ABANDONED
                raise
            finally:
                if outcome is not None:
                    self._tell_end(deployment, call, outcome, watch)

    def _tell_first(self, deployment: Deployment, watch: _Watch, span: Span) -> None:
        watch.first_s = perf_counter() - watch.began
        span.began_to_answer(watch.first_s)
        self._metrics.first_event_came(deployment.id, watch.first_s)

    def _tell_end(self, deployment: Deployment, call: Call, outcome: CallOutcome, watch: _Watch) -> None:
        seconds = perf_counter() - watch.began
        self._metrics.call_ended(deployment.id, operation_of(call), outcome, seconds)
        if call.creates and outcome is not CallOutcome.ABANDONED:
            self.lately.ended(deployment.id, seconds, watch.first_s, failed=outcome in _FAILURES)


def _told(deployment: Deployment, call: Call) -> tracing.Call:
    return tracing.Call(
        operation_of(call),
        call.spends,
        deployment.provider,
        call.model or deployment.upstream_model,
        deployment.base_url,
        deployment.id[:16],
        call.stream,
    )


def _note_failure(span: Span, error: PolluxError, outcome: CallOutcome | None) -> None:
    if isinstance(error, UpstreamRefusal):
        span.answered(error.status)
        span.failed(str(error.status))
    elif outcome is not None:
        span.failed(outcome)


def operation_of(call: Call) -> str:
    """What a call does, in one word."""
    if call.creates:
        return "create"
    if call.operation:
        return call.operation
    if call.method == "POST":
        return "cancel" if call.path[1:] == ("cancel",) else "other"
    return {"GET": "read", "DELETE": "delete"}.get(call.method, "other")


def outcome_of(error: PolluxError) -> CallOutcome | None:
    """How a call ended that raised this error; None if it was never sent."""
    if isinstance(error, UpstreamTimeout):
        return CallOutcome.TIMEOUT
    if isinstance(error, UpstreamUnavailable):
        return CallOutcome.BROKEN if error.begun else CallOutcome.UNREACHABLE
    if not isinstance(error, UpstreamRefusal):
        return None
    if error.status == 429:
        return CallOutcome.LIMITED
    return CallOutcome.FAILED if error.status >= 500 else CallOutcome.REFUSED
