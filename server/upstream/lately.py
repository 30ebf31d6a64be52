"""How the calls to each deployment went lately in this process: for people who look, not for the choice of one."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WITHIN_S = 300.0
"""What is older does not count."""
MOST_CALLS = 256
"""How many calls of a deployment are remembered."""


@dataclass(slots=True)
class _Call:
    at: float
    failed: bool
    seconds: float
    first_s: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """How the last calls of one deployment went: those of the last five minutes, at most `MOST_CALLS`."""

    calls: int = 0
    failed: int = 0
    median_s: float | None = None
    """From the beginning of a call to its end."""
    first_median_s: float | None = None
    """To the first event of a stream."""


class Lately:
    """Remembers the calls that create responses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[str, deque[_Call]] = {}

    def ended(self, deployment: str, seconds: float, first_s: float | None, *, failed: bool) -> None:
        calls = self._calls.setdefault(deployment, deque(maxlen=MOST_CALLS))
        calls.append(_Call(self._clock(), failed, seconds, first_s))

    def course(self, deployment: str) -> Course:
        """How it went with this deployment."""
        since = self._clock() - WITHIN_S
        calls = [call for call in self._calls.get(deployment, ()) if call.at >= since]
        went_well = [call.seconds for call in calls if not call.failed]
        firsts = [call.first_s for call in calls if call.first_s is not None]
        return Course(
            len(calls),
            sum(call.failed for call in calls),
            statistics.median(went_well) if went_well else None,
            statistics.median(firsts) if firsts else None,
        )
