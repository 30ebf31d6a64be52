"""Whether a series of samples grows, and whether waits have become longer: told from noise without assuming its shape.

A leak is a line that rises from the first sample to the last. A cache that fills rises too, but ever less. So a series
grows if it rises in the whole of its time as well as in its second half, faster than what is allowed, and if that is
beyond doubt given how much the samples scatter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

Series = Sequence[tuple[float, float]]
"""Moments in seconds, and what was found at each."""

DOUBT = 2.33
"""In standard errors: a steady series seems to rise by more than that one time in a hundred."""


@dataclass(frozen=True)
class Slope:
    """How much a series rises in a minute."""

    middle: float
    least: float
    """So much it rises for certain."""


def slope_of(series: Series) -> Slope:
    """By Theil and Sen: the median of the slopes of all pairs, which a third of wild samples does not move.

    The lower bound is that of a one-sided interval of 99 %, by Kendall's variance of the number of rising pairs.
    """
    slopes = sorted(
        (later - earlier) / (end - begin) * 60
        for number, (begin, earlier) in enumerate(series)
        for end, later in series[number + 1 :]
        if end > begin
    )
    if not slopes:
        return Slope(0.0, 0.0)
    count = len(series)
    scatter = DOUBT * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    lowest = max(0, math.floor((len(slopes) - scatter) / 2))
    return Slope(statistics.median(slopes), slopes[lowest])


@dataclass(frozen=True)
class Allowance:
    """How much a series may rise although nothing leaks."""

    share_a_minute: float
    """Of its median."""
    in_all: float
    """From its first third to its last, in its own unit: below that nobody would call it a leak."""


@dataclass(frozen=True)
class Growth:
    """What was found of one series."""

    first: float
    last: float
    """Medians of the first third and of the last."""
    share_a_minute: float
    grows: bool


def growth_of(series: Series, allowance: Allowance, load: float = 1.0) -> Growth:
    """Judge a series that begins when all is warm.

    Args:
        load: how many times as much was under way in the last third as in the first, where the series goes with that:
            a machine that becomes slower has more under way at once, and that is no leak
    """
    values = [value for _, value in series]
    if not values:
        return Growth(0.0, 0.0, 0.0, grows=False)
    first, last = thirds(values)
    level = max(1e-9, statistics.median(values))
    whole, second = slope_of(series), slope_of(series[len(series) // 2 :])
    allowed = allowance.share_a_minute * level
    rises = whole.least > allowed and second.middle > allowed and second.least > 0
    grows = rises and last - first * max(1.0, load) > allowance.in_all
    return Growth(first, last, whole.middle / level, grows)


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first third and of the last."""
    third = max(1, len(values) // 3)
    return statistics.median(values[:third]), statistics.median(values[-third:])


@dataclass(frozen=True)
class Spread:
    """How long waits took, in seconds."""

    quick: float
    """One in five was quicker."""
    p50: float
    p95: float

    @classmethod
    def of(cls, waits: Sequence[float]) -> Self:
        ordered = sorted(waits)
        return cls(*(ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.2, 0.5, 0.95)))


@dataclass(frozen=True)
class Drift:
    """What was found of one kind of wait, in the first third of the time and in the last."""

    count: int
    first: Spread
    last: Spread
    drifts: bool


MOST_DRIFT = 1.5
"""The last third may take so many times as long as the first one, on a machine that has not changed."""
UNNOTICED_S = 0.02
"""Nobody calls it a drift below that."""
FEW = 50
"""So many waits in each third say something; fewer are only shown."""


def drift_of(waits: Series, began: float, ended: float, machine: float = 1.0) -> Drift | None:
    """Judge waits between two moments; None if there are none in one of the thirds.

    The quick ones count: what the server does more and more of delays all of its answers, while a neighbour who takes
    the machine away for a while delays the slow ones most. `machine` is how many times as slow the machine itself was.
    """
    third = (ended - began) / 3
    before = [value for at, value in waits if began <= at < began + third]
    after = [value for at, value in waits if ended - third <= at < ended]
    if not before or not after:
        return None
    first, last = Spread.of(before), Spread.of(after)
    slower = last.quick > first.quick * MOST_DRIFT * max(1.0, machine) and last.quick - first.quick > UNNOTICED_S
    drifts = slower and min(len(before), len(after)) >= FEW
    return Drift(len(waits), first, last, drifts)
