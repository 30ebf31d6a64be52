"""How the deployments fare: what each has in flight, how it failed lately, whether it cools down; and whose turn it is.

All of it is of one process and in memory. Replicas learn of a dead deployment each by itself, which costs each of them
one try, and `max_parallel_requests` bounds each process for itself: divide it by their number. Only calls that make a
response count: what reads or cancels one takes no place, and its failure says more of that response.

A deployment that failed with a passing error cools down, and is not chosen while another one is healthy. After that it
gets one call at a time until one is answered, so that a dead one delays one request per cool-down, not all of them. Of
cooling ones the least recently cooled is tried: there is always one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from server.errors import RateLimited
from server.upstream.deployments import Deployment

log = logging.getLogger("pollux.upstream")

FAILURES_WITHIN_S = 60.0
"""Failures older than this are forgotten. LiteLLM's minute."""
FULL_RETRY_AFTER_S = 5
"""What a client is told that found no place: nobody knows when one is free, and soon enough is often enough."""


@dataclass(slots=True, eq=False)
class _State:
    """What is known of one deployment."""

    limit: int | None
    failures: deque[float]
    """When it failed; as many as make it cool down."""
    in_flight: int = 0
    waiting: OrderedDict[asyncio.Future[bool], None] = field(default_factory=OrderedDict)
    """Who waits for a place, first come first served: True hands it over, False says to look elsewhere."""
    cooled_at: float = 0.0
    cools_until: float = 0.0
    doubted: bool = False
    """It has cooled down and not answered since."""
    trials: int = 0
    """Calls that were begun in doubt."""

    @property
    def full(self) -> bool:
        return self.limit is not None and self.in_flight >= self.limit

    def healthy(self, now: float) -> bool:
        return now >= self.cools_until and not (self.doubted and self.trials)

    def load(self) -> tuple[bool, float]:
        """A free place goes before a queue; then the least in flight, or the shortest queue for its places."""
        if self.limit is not None and self.full:
            return True, len(self.waiting) / self.limit
        return False, self.in_flight


class Health:
    """The state of all deployments in this process."""

    def __init__(
        self, *, allowed_fails: int = 0, cooldown_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._enough = allowed_fails + 1
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._states: dict[str, _State] = {}

    def is_healthy(self, deployment: Deployment) -> bool:
        return self._state(deployment).healthy(self._clock())

    def in_flight(self, deployment: Deployment) -> int:
        return self._state(deployment).in_flight

    def choose(self, deployments: Sequence[Deployment], tried: Sequence[str] = ()) -> Deployment:
        """Of the healthy ones, one that was not tried yet, with the least in flight; ties are random.

        `tried` has the ids that this request was sent to, as often as it was.
        """
        if len(deployments) == 1:
            return deployments[0]
        if healthy := [deployment for deployment in deployments if self.is_healthy(deployment)]:
            return min(
                healthy,
                key=lambda d: (tried.count(d.id), *self._state(d).load(), random.random()),  # noqa: S311
            )
        return min(deployments, key=lambda d: (self._state(d).cooled_at, random.random()))  # noqa: S311

    @asynccontextmanager
    async def place(
        self, deployments: Sequence[Deployment], *, patience_s: float | None = None, tried: list[str] | None = None
    ) -> AsyncIterator[Deployment]:
        """A deployment that has a place for one more call, for the length of the block.

        Waits for one where all are full: as long as the caller lives, or `patience_s`. Its id is added to `tried`.

        Raises:
            RateLimited: there was none in time

        """
        chosen = await self._enter(deployments, patience_s, tried or ())
        if tried is not None:
            tried.append(chosen.id)
        state = self._state(chosen)
        on_trial = state.doubted
        state.trials += on_trial
        try:
            yield chosen
        finally:
            state.trials -= on_trial
            state.in_flight -= 1
            _hand_over(state)

    def succeeded(self, deployment: Deployment) -> None:
        """It answered."""
        self._state(deployment).doubted = False

    def failed(self, deployment: Deployment, *, retry_after_s: float | None = None, limited: bool = False) -> None:
        """It failed in a way that another call may meet too. Being `limited` is enough for a cool-down, at once."""
        state, now = self._state(deployment), self._clock()
        state.failures.append(now)
        often = len(state.failures) == self._enough and now - state.failures[0] <= FAILURES_WITHIN_S
        pause_s = self._cooldown_s if retry_after_s is None else retry_after_s
        if (often or limited) and pause_s > 0:
            self._cool(deployment, state, now, pause_s)

    def _cool(self, deployment: Deployment, state: _State, now: float, pause_s: float) -> None:
        if was_healthy := now >= state.cools_until:
            fields = {"deployment": deployment.id[:16], "seconds": pause_s}
            log.warning("a deployment of %s cools down", deployment.model_name, extra=fields)
        state.cooled_at, state.doubted = now, True
        state.cools_until = max(state.cools_until, now + pause_s)
        if was_healthy:
            # Who waits for it may be served elsewhere; if not, they queue again in the same order.
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
            state = _State(deployment.max_parallel_requests, deque(maxlen=self._enough))
            self._states[deployment.id] = state
        return state


def _took_place(state: _State) -> bool:
    if state.full:
        return False
    state.in_flight += 1
    return True


async def _place_at(state: _State) -> bool:
    """Take a place, after everybody who waits for one already. False: look elsewhere."""
    if _took_place(state):
        return True
    waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    state.waiting[waiter] = None
    try:
        return await waiter
    except asyncio.CancelledError:
        if waiter.done() and not waiter.cancelled() and waiter.result():
            # Handed over and given up in the same moment.
            state.in_flight -= 1
            _hand_over(state)
        raise
    finally:
        state.waiting.pop(waiter, None)


def _hand_over(state: _State) -> None:
    """Free places go to who waits longest. Whoever comes now finds them taken, and queues behind."""
    while state.waiting and not state.full:
        waiter, _ = state.waiting.popitem(last=False)
        if not waiter.done():
            state.in_flight += 1
            waiter.set_result(True)
