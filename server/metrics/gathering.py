"""Gathers what is counted in plain numbers, and hands it to the library now and then.

To count in the library takes ten times as long, and in its files of several processes thirty times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

Labels = tuple[Any, ...]


class _Series(dict[Labels, Any]):
    """The library's time series of one metric, by the values of its labels."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: Labels) -> Any:
        made = self[labels] = self._metric.labels(*labels) if labels else self._metric
        return made


class Totals:
    """A counter."""

    def __init__(self, metric: Any) -> None:
        self._series = _Series(metric)
        self._more: dict[Labels, float] = {}

    def add(self, *labels: Any, amount: float = 1) -> None:
        self._more[labels] = self._more.get(labels, 0) + amount

    def hand_over(self) -> None:
        more, self._more = self._more, {}
        for labels, amount in more.items():
            self._series[labels].inc(amount)


class Level:
    """A gauge."""

    def __init__(self, metric: Any) -> None:
        self._series = _Series(metric)

    def set(self, *labels: Any, to: float) -> None:
        self._series[labels].set(to)


class _Heap:
    """How many observations fell into each bucket, and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0


class Spread:
    """A histogram."""

    def __init__(self, metric: Any, bounds: Sequence[float]) -> None:
        self._series = _Series(metric)
        self._bounds = bounds
        self._heaps: dict[Labels, _Heap] = {}

    def observe(self, *labels: Any, value: float) -> None:
        heap = self._heaps.get(labels)
        if heap is None:
            heap = self._heaps[labels] = _Heap(len(self._bounds) + 1)
        heap.counts[bisect_left(self._bounds, value)] += 1
        heap.sum += value

    def hand_over(self) -> None:
        heaps, self._heaps = self._heaps, {}
        for labels, heap in heaps.items():
            series = self._series[labels]
            # The library can only be told of one observation at a time. `tests/server/test_metrics.py` tells if what is
            # used here of its inside has changed.
            for bucket, count in zip(series._buckets, heap.counts, strict=True):  # noqa: SLF001
                if count:
                    bucket.inc(count)
            series._sum.inc(heap.sum)  # noqa: SLF001
