"""The rule by which one of several deployments of a model is chosen. Pure: what it depends on is passed in.

Each step keeps those that are best by one measure: the least tried by this request, those within their limits of the
minute, those with a free place, those of the lowest `order`. Among the rest the strategy decides. No step ever leaves
none, so a limit of the minute only turns calls to others while these have room.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from server.upstream.deployments import Deployment

DEFAULT_STRATEGY = "least-busy"


class Strategy(StrEnum):
    """How the choice is made among deployments that are equally fit."""

    AUTO = "auto"
    """A draw by weight where weights are given, else the least in flight."""
    DRAW = "simple-shuffle"
    """A draw by weight; among deployments without weights all have the same chance."""
    LEAST_BUSY = "least-busy"
    """The least in flight."""
    LEAST_USED = "usage-based-routing-v2"
    """The fewest calls in the current minute."""
    CHEAPEST = "cost-based-routing"
    """The lowest price of a token, as the config has it."""


_SERVED_BY = {
    "usage-based-routing": (Strategy.LEAST_USED, "calls are counted, not tokens, by each process"),
    "usage-based-routing-v2": (Strategy.LEAST_USED, "calls are counted, not tokens, by each process"),
    "latency-based-routing": (Strategy.LEAST_BUSY, "by the least in flight, because a slow deployment has more of it"),
    "cost-based-routing": (Strategy.CHEAPEST, "by input_cost_per_token and output_cost_per_token of litellm_params"),
}
"""Names of LiteLLM's that mean something else here, with what they mean."""


def strategy_named(name: str | None) -> Strategy:
    """The strategy that serves a name of LiteLLM's. One that nobody knows is served by the least in flight."""
    if name is None:
        return Strategy.AUTO
    if name in _SERVED_BY:
        return _SERVED_BY[name][0]
    return Strategy(name) if name in (Strategy.DRAW, Strategy.LEAST_BUSY) else Strategy.LEAST_BUSY


def described(name: str) -> str:
    """A strategy as `check-config` tells it."""
    if name in _SERVED_BY:
        return f"{name}: {_SERVED_BY[name][1]}"
    return name if name in (Strategy.DRAW, Strategy.LEAST_BUSY) else f"{DEFAULT_STRATEGY}, because {name} is unknown"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment that may be chosen, and its present state."""

    deployment: Deployment
    tried: int = 0
    """How often this request was sent to it before."""
    in_flight: int = 0
    calls: int = 0
    """Calls that began in the current minute."""
    tokens: int = 0
    """Tokens that calls reported in the current minute."""
    queue: float | None = None
    """Where no place is free: the waiting calls, in relation to the places."""

    @property
    def over_limit(self) -> bool:
        limits = self.deployment
        return (limits.rpm is not None and self.calls >= limits.rpm) or (
            limits.tpm is not None and self.tokens >= limits.tpm
        )


def choose(candidates: Sequence[Candidate], strategy: Strategy, rng: random.Random) -> Deployment:
    """The deployment for the next call. There must be a candidate."""
    fittest = _least(candidates, lambda c: c.tried)
    fittest = _least(fittest, lambda c: c.over_limit)
    fittest = _least(fittest, lambda c: (c.queue is not None, c.queue or 0))
    fittest = _least(fittest, lambda c: _order(c.deployment))
    weights = weights_of([candidate.deployment for candidate in fittest])
    if strategy is Strategy.DRAW or (strategy is Strategy.AUTO and weights):
        (drawn,) = rng.choices(fittest, weights or None)
        return drawn.deployment
    if strategy is Strategy.LEAST_USED:
        fittest = _least(fittest, lambda c: c.calls)
    elif strategy is Strategy.CHEAPEST:
        fittest = _least(fittest, lambda c: _cost(c.deployment))
    return rng.choice(_least(fittest, lambda c: c.in_flight)).deployment


def weights_of(deployments: Sequence[Deployment]) -> list[float]:
    """The weights for a draw, as LiteLLM takes them: of all `weight`, else of all `rpm`, else of all `tpm`.

    One that lacks what another one has is never drawn. Empty if none has any.
    """
    for measure in (
        [deployment.weight or 0.0 for deployment in deployments],
        [deployment.rpm or 0.0 for deployment in deployments],
        [deployment.tpm or 0.0 for deployment in deployments],
    ):
        if (largest := max(measure, default=0.0)) > 0:
            return [weight / largest for weight in measure]
    return []


def _least(candidates: Sequence[Candidate], measure: Callable[[Candidate], Any]) -> Sequence[Candidate]:
    least = min(map(measure, candidates))
    return [candidate for candidate in candidates if measure(candidate) == least]


def _order(deployment: Deployment) -> tuple[bool, int]:
    return deployment.order is None, deployment.order or 0


def _cost(deployment: Deployment) -> tuple[bool, float]:
    """A deployment whose price nobody stated is taken for the most expensive."""
    return deployment.cost is None, deployment.cost or 0
