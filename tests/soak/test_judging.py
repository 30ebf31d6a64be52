"""The soak's own test: it finds what leaks one percent a minute, and takes neither noise nor a cache for a leak."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from tests.soak.judging import Allowance, drift_of, growth_of, slope_of

MINUTES, SAMPLES = 8.0, 64
"""What counts of a run of ten minutes."""
MEMORY = Allowance(0.004, 1.5)
SEEDS = range(30)


def sampled(level: Callable[[float], float], noise: float, seed: int) -> list[tuple[float, float]]:
    """Samples of what has this level at a minute, scattered by so much."""
    chance = random.Random(seed)
    moments = [MINUTES * n / SAMPLES for n in range(SAMPLES)]
    return [(at * 60, chance.gauss(level(at), noise)) for at in moments]


def share_that_grows(level: Callable[[float], float], noise: float, load: float = 1.0) -> float:
    return sum(growth_of(sampled(level, noise, seed), MEMORY, load).grows for seed in SEEDS) / len(SEEDS)


def test_a_leak_of_one_percent_a_minute_is_found() -> None:
    assert share_that_grows(lambda minute: 80 * (1 + 0.01 * minute), noise=1.0) == 1.0


@pytest.mark.parametrize(
    "level",
    [
        lambda _: 80.0,
        lambda minute: 80 - minute,
        lambda minute: 80 + 8 * (1 - math.exp(-minute)),  # a cache that fills
        lambda minute: 80 + 5 * (minute > 3),  # something that is made once
    ],
    ids=["steady", "falling", "filling", "a step"],
)
def test_what_does_not_go_on_growing_is_no_leak(level: Callable[[float], float]) -> None:
    assert share_that_grows(level, noise=2.0) <= 0.04


def test_what_grows_with_the_load_is_no_leak_but_what_grows_more_is() -> None:
    assert share_that_grows(lambda minute: 40 + 2 * minute, noise=1.0, load=1.5) <= 0.04
    assert share_that_grows(lambda minute: 40 + 8 * minute, noise=1.0, load=1.5) == 1.0


def test_wild_samples_move_no_slope() -> None:
    series = sampled(lambda minute: 80 + minute, noise=0.1, seed=1)
    wild = [(at, 1000.0 if n % 4 == 0 else value) for n, (at, value) in enumerate(series)]
    assert slope_of(series).middle == pytest.approx(1.0, abs=0.05)
    assert slope_of(wild).middle == pytest.approx(1.0, abs=0.5)
    assert slope_of(series).least <= slope_of(series).middle
    assert slope_of(series[:1]).middle == 0.0


def waits(last_third: float, slow: float, seed: int = 1) -> list[tuple[float, float]]:
    """From half a minute on, waits of 50 ms and so much longer in the last third; one in three is slow."""
    chance = random.Random(seed)
    return [
        (at, (0.05 + last_third * (at >= 60)) * (slow if chance.random() < 0.3 else 1.0) * chance.uniform(0.9, 1.2))
        for at in (chance.uniform(0, 90) for _ in range(900))
    ]


def test_waits_that_become_longer_are_found_and_a_slower_machine_is_no_excuse_for_more() -> None:
    drift = drift_of(waits(0.05, slow=1.0), 0, 90)
    assert drift is not None
    assert drift.drifts
    assert drift.first.quick == pytest.approx(0.05, abs=0.01)
    for machine, drifts in ((1.1, True), (1.6, False)):
        found = drift_of(waits(0.05, slow=1.0), 0, 90, machine)
        assert found is not None
        assert found.drifts is drifts


def test_slow_ones_among_them_are_no_drift() -> None:
    for slow in (1.0, 20.0):
        found = drift_of(waits(0.0, slow), 0, 90)
        assert found is not None
        assert not found.drifts
    assert drift_of([], 0, 90) is None


def test_a_few_waits_are_shown_but_prove_nothing() -> None:
    for count, drifts in ((60, False), (300, True)):
        found = drift_of(waits(0.05, slow=1.0)[:count], 0, 90)
        assert found is not None
        assert found.drifts is drifts
