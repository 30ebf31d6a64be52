"""The health of the deployments: calls in flight and in the minute, recent failures and cool-downs.

The state is kept in memory, per process. Each replica finds out about a dead deployment by itself, which costs it one
try. `max_parallel_requests` limits each process separately, so divide the intended limit by their number. Only calls
that create a response count. Calls that read or cancel one take no place, and their failures rather concern that
response than the deployment.

A deployment that failed with a passing error cools down: it is not chosen while another one is healthy. After the
cool-down it gets one call at a time until one succeeds, so that a dead deployment delays one request per cool-down, not
all. If all deployments are cooling down, the one that began to do so first is tried, so a request always has one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from server.errors import RateLimited
from server.metrics import SILENT, Metrics
from server.upstream.choice import Candidate, Strategy, choose
from server.upstream.deployments import Deployment

log = logging.getLogger("pollux.upstream")

FAILURES_WITHIN_S = 60.0
"""Failures older than this are forgotten. LiteLLM uses the same minute."""
FULL_RETRY_AFTER_S = 5
"""The `Retry-After` for a client that got no place. It is an estimate: when a place becomes free is not known."""


MINUTE_S = 60.0


@dataclass(slots=True)
class _Minute:
    """What is counted within the current minute."""

    number: int = 0
    calls: int = 0
    tokens: int = 0

    def at(self, now: float) -> _Minute:
        """The same, begun anew if another minute has come."""
        if (number := int(now // MINUTE_S)) != self.number:
            self.number, self.calls, self.tokens = number, 0, 0
        return self


@dataclass(slots=True, eq=False)
class _State:
    """The state of one deployment."""

    limit: int | None
    failures: deque[float]
    """The times of the last failures, as many as lead to a cool-down."""
    minute: _Minute = field(default_factory=_Minute)
    in_flight: int = 0
    waiting: OrderedDict[asyncio.Future[bool], None] = field(default_factory=OrderedDict)
    """Calls that wait for a place, first come, first served. True gives the place; False means: choose again."""
    cooled_at: float = 0.0
    cools_until: float = 0.0
    doubted: bool = False
    """Whether no call has succeeded since the last cool-down began."""
    trials: int = 0
    """Calls in flight that began while the deployment was doubted."""

    def trust(self, enough: int) -> None:
        """Forget all failures. `enough`: so many lead to a cool-down from now on."""
        self.failures = deque(maxlen=enough)
        self.cooled_at = self.cools_until = 0.0
        self.doubted = False

    @property
    def full(self) -> bool:
        return self.limit is not None and self.in_flight >= self.limit

    def healthy(self, now: float) -> bool:
        return now >= self.cools_until and not (self.doubted and self.trials)

    @property
    def queue(self) -> float | None:
        """The length of the queue in relation to the places, if none is free."""
        return len(self.waiting) / self.limit if self.limit is not None and self.full else None


@dataclass(frozen=True, slots=True)
class Rules:
    """How deployments are judged and chosen."""

    allowed_fails: int = 0
    """So many failures within a minute are forgiven."""
    cooldown_s: float | None = 5.0
    """None: none cools down."""
    least_pause_s: float = 0.0
    """How long a retry waits at least where no other deployment is healthy."""
    strategy: Strategy = Strategy.AUTO

    @property
    def enough(self) -> int:
        return self.allowed_fails + 1


_DEFAULT = Rules()


class Health:
    """The state of all deployments in this process."""

    def __init__(
        self, rules: Rules = _DEFAULT, *, metrics: Metrics = SILENT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._metrics = metrics
        self._rng = random.Random()  # noqa: S311 - nothing depends on its being secret
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._heeded: Mapping[str, Deployment] = {}

    @property
    def least_pause_s(self) -> float:
        return self._rules.least_pause_s

    def heed(self, rules: Rules, deployments: Sequence[Deployment]) -> None:
        """Go on by these rules, with these deployments.

        What is known of a deployment stays, unless it was changed: then it is trusted again, as after a start. The
        state of one that is gone is forgotten when no call is left on it.
        """
        before, self._heeded = self._heeded, {deployment.id: deployment for deployment in deployments}
        self._rules = rules
        for known, state in list(self._states.items()):
            deployment = self._heeded.get(known)
            if deployment is None:
                if not state.in_flight and not state.waiting:
                    del self._states[known]
                continue
            if deployment != before.get(known):
                state.trust(rules.enough)
            elif state.failures.maxlen != rules.enough:
                state.failures = deque(state.failures, maxlen=rules.enough)
            state.limit = deployment.max_parallel_requests
            _hand_over(state)

    def is_healthy(self, deployment: Deployment) -> bool:
        return self._state(deployment).healthy(self._clock())

    def in_flight(self, deployment: Deployment) -> int:
        return self._state(deployment).in_flight

    def cools_for_s(self, deployment: Deployment) -> float:
        """How long it will still cool down; 0 if it does not."""
        return max(0.0, self._state(deployment).cools_until - self._clock())

    def choose(self, deployments: Sequence[Deployment], tried: Sequence[str] = ()) -> Deployment:
        """The healthy deployment that `choice.choose` prefers, or of cooling ones the one that began to do so first.

        `tried` lists the ids of the deployments that this request was sent to, one for each try.
        """
        if len(deployments) == 1:
            return deployments[0]
        if healthy := [deployment for deployment in deployments if self.is_healthy(deployment)]:
            return choose([self._candidate(made, tried) for made in healthy], self._rules.strategy, self._rng)
        return min(deployments, key=lambda d: (self._state(d).cooled_at, self._rng.random()))

    def _candidate(self, deployment: Deployment, tried: Sequence[str]) -> Candidate:
        state = self._state(deployment)
        minute = state.minute.at(self._clock())
        return Candidate(
            deployment, tried.count(deployment.id), state.in_flight, minute.calls, minute.tokens, state.queue
        )

    @asynccontextmanager
    async def place(
        self, deployments: Sequence[Deployment], *, patience_s: float | None = None, tried: list[str] | None = None
    ) -> AsyncIterator[Deployment]:
        """Choose a deployment, and hold a place for one call on it during the block.

        If all are full, this waits for a place, at most `patience_s` if given. The chosen id is added to `tried`.

        Raises:
            RateLimited: no place became free in time

        """
        chosen = await self._enter(deployments, patience_s, tried or ())
        if tried is not None:
            tried.append(chosen.id)
        state = self._state(chosen)
        state.minute.at(self._clock()).calls += 1
        on_trial = state.doubted
        state.trials += on_trial
        try:
            yield chosen
        finally:
            state.trials -= on_trial
            state.in_flight -= 1
            _hand_over(state)

    def succeeded(self, deployment: Deployment) -> None:
        """Record that the deployment answered a call."""
        self._state(deployment).doubted = False

    def spent(self, deployment: Deployment, tokens: int) -> None:
        """Count the tokens that a call reported, for `tpm`."""
        self._state(deployment).minute.at(self._clock()).tokens += tokens

    def failed(self, deployment: Deployment, *, retry_after_s: float | None = None, limited: bool = False) -> None:
        """Record a failure that other calls may meet too. If the provider `limited` us, it cools down at once."""
        if self._rules.cooldown_s is None:
            return
        state, now = self._state(deployment), self._clock()
        state.failures.append(now)
        often = len(state.failures) == self._rules.enough and now - state.failures[0] <= FAILURES_WITHIN_S
        # In LiteLLM's order: what the deployment says goes before what the provider asks.
        said = (deployment.cooldown_s, retry_after_s, self._rules.cooldown_s)
        pause_s = next(pause_s for pause_s in said if pause_s is not None)
        if (often or limited) and pause_s > 0:
            self._cool(deployment, state, now, pause_s)

    def _cool(self, deployment: Deployment, state: _State, now: float, pause_s: float) -> None:
        if was_healthy := now >= state.cools_until:
            fields = {"deployment": deployment.id[:16], "seconds": pause_s}
            log.warning("a deployment of %s cools down", deployment.model_name, extra=fields)
            self._metrics.cooled_down(deployment.id)
        state.cooled_at, state.doubted = now, True
        state.cools_until = max(state.cools_until, now + pause_s)
        if was_healthy:
            # Waiting calls choose again. If there is no other deployment, they queue again in the same order.
            while state.waiting:
                waiter, _ = state.waiting.popitem(last=False)
                if not waiter.done():
                    waiter.set_result(False)

    async def _enter(
        self, deployments: Sequence[Deployment], patience_s: float | None, tried: Sequence[str]
    ) -> Deployment:
        chosen = self.choose(deployments, tried)
        if _took_place(self._state(chosen)):
            return chosen
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    chosen = self.choose(deployments, tried)
                    if await _place_at(self._state(chosen)):
                        return chosen
        except TimeoutError:
            text = f"The model '{deployments[0].model_name}' has as many requests under way as its deployments allow."
            raise RateLimited(f"{text} Try again later.", FULL_RETRY_AFTER_S) from None

    def _state(self, deployment: Deployment) -> _State:
        state = self._states.get(deployment.id)
        if state is None:
            state = _State(deployment.max_parallel_requests, deque(maxlen=self._rules.enough))
            self._states[deployment.id] = state
        return state


def _took_place(state: _State) -> bool:
    if state.full:
        return False
    state.in_flight += 1
    return True


async def _place_at(state: _State) -> bool:
    """Take a place, after all calls that already wait for one. False: the caller must choose again."""
    if _took_place(state):
        return True
    waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    state.waiting[waiter] = None
    try:
        return await waiter
    except asyncio.CancelledError:
        if waiter.done() and not waiter.cancelled() and waiter.result():
            # The caller was cancelled after it had been given the place: pass it on.
            state.in_flight -= 1
            _hand_over(state)
        raise
    finally:
        state.waiting.pop(waiter, None)


def _hand_over(state: _State) -> None:
    """Give free places to the calls that have waited longest, before a new call can take them."""
    while state.waiting and not state.full:
        waiter, _ = state.waiting.popitem(last=False)
        if not waiter.done():
            state.in_flight += 1
            waiter.set_result(True)
