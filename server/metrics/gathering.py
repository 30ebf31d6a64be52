"""Gathers what is counted in plain numbers, and hands it to the library now and then.

To count in the library takes ten times as long, and in its files of several processes thirty times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import inf
from time import time
from typing import Any

from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

Labels = tuple[Any, ...]
TraceOf = Callable[[], dict[str, str] | None]
"""Names the trace and the span of what is done now; None where nobody could find them."""


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
    """A histogram; `names` are those of its labels. With `trace_of` its buckets have exemplars."""

    def __init__(
        self, metric: Any, bounds: Sequence[float], names: Sequence[str] = (), trace_of: TraceOf | None = None
    ) -> None:
        self._names = names
        self._series = _Series(metric)
        self._bounds = bounds
        self._heaps: dict[Labels, _Heap] = {}
        self._trace_of = trace_of
        self._exemplars: dict[tuple[str, ...], dict[str, Exemplar]] = {}
        """The newest of each bucket, by the values of the labels and then by the bound."""

    def observe(self, *labels: Any, value: float) -> None:
        heap = self._heaps.get(labels)
        if heap is None:
            heap = self._heaps[labels] = _Heap(len(self._bounds) + 1)
        bucket = bisect_left(self._bounds, value)
        heap.counts[bucket] += 1
        heap.sum += value
        if self._trace_of is not None and (trace := self._trace_of()) is not None:
            bound = floatToGoString(  # type: ignore[no-untyped-call]
                self._bounds[bucket] if bucket < len(self._bounds) else inf
            )
            self._exemplars.setdefault(tuple(map(str, labels)), {})[bound] = Exemplar(trace, value, time())

    def with_exemplars(self, samples: list[Sample]) -> list[Sample]:
        """The samples of this histogram, its buckets with the exemplars of this process."""
        if not self._exemplars:
            return samples
        return [self._with_exemplar(sample) if sample.name.endswith("_bucket") else sample for sample in samples]

    def _with_exemplar(self, sample: Sample) -> Sample:
        values = tuple(sample.labels[name] for name in self._names)
        found = self._exemplars.get(values)
        exemplar = found.get(sample.labels["le"]) if found else None
        return sample if exemplar is None else sample._replace(exemplar=exemplar)

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
