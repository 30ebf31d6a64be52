"""Counts for Prometheus what `Metrics` is told, and shows it."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from server import __version__
from server.metrics import families
from server.metrics.families import FROM_STORE, Family
from server.metrics.files import Shared, keep_values, leave_pid
from server.metrics.gathering import Level, Spread, Totals, TraceOf
from server.metrics.levels import Levels
from server.metrics.port import Metrics
from server.metrics.processes import Processes
from server.metrics.reloads import ReloadCounts
from server.protocol.lifecycle import Status
from server.protocol.tokens import Tokens
from storage import TERMINAL, Counts, StoreError, StoreFull, StoreMisfit, StoreUnavailable, Tried

OTHER = "other"
"""The label of whatever is not in the config, or not known."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_KINDS_OF_TOKENS = ("input", "cached_input", "output", "reasoning")
"""In the order of `Tokens`."""


class Counting(Metrics):
    """The metrics of this process; with `shared`, those of all that share them. `role` is what the process does."""

    def __init__(self, *, role: str = "all", shared: Shared | None = None, trace_of: TraceOf | None = None) -> None:
        """`trace_of` names the trace of what is done now, for exemplars.

        They are those of this process alone, as the files that processes share have no room for them.
        """
        self._model_of: Callable[[str], str] = lambda _: OTHER
        self._deployments: dict[str, tuple[str, str]] = {}
        self._measured = Levels()
        """What was measured last, since these deployments are heeded."""
        self._files = shared
        self._registry = CollectorRegistry()
        self._scraping = threading.Lock()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        keep_values(shared)
        self._all: list[Totals | Spread] = []
        self._trace_of, self._spreads = trace_of, dict[str, Spread]()
        total, spread, level = self._new_total, self._new_spread, self._new_level
        self._requests, self._request_s = total(families.REQUESTS), spread(families.REQUEST_S)
        self._errors = total(families.ERRORS)
        self._created, self._ended = total(families.CREATED), total(families.ENDED)
        self._create_s, self._lag_s = spread(families.CREATE_S), spread(families.LAG_S)
        self._wait_s, self._reclaimed = spread(families.WAIT_S), total(families.RECLAIMED)
        self._begun, self._outcomes = total(families.BEGUN), total(families.OUTCOMES)
        self._run_s, self._attempt = spread(families.RUN_S), spread(families.ATTEMPT)
        self._events = total(families.EVENTS)
        self._flush_bytes, self._flush_s = spread(families.FLUSH_BYTES), spread(families.FLUSH_S)
        self._calls, self._call_s = total(families.CALLS), spread(families.CALL_S)
        self._first_s, self._cooled = spread(families.FIRST_S), total(families.COOLED)
        self._store_s, self._store_errors = spread(families.STORE_CALL_S), total(families.STORE_ERRORS)
        self._deliveries, self._delivery_s = total(families.DELIVERIES), spread(families.DELIVERY_S)
        self._tokens = total(families.TOKENS)
        self._runs, self._exchanges = level(families.RUNS), level(families.EXCHANGES)
        self._waiters, self._streams = level(families.WAITERS), level(families.STREAMS)
        self._in_flight, self._cooling = level(families.IN_FLIGHT), level(families.COOLING)
        self._tasks = level(families.TASKS)
        level(families.PROCESSES).set(to=1)
        # Of several processes their parent counts reloads.
        self._reloads = ReloadCounts(self._registry) if shared is None else None
        self._processes = Processes(shared)
        if shared is not None:
            leave_pid(shared)
        self._about = (__version__, platform.python_version(), role)
        self._begin_at_zero()

    def heed(self, model_of: Callable[[str], str], deployments: Mapping[str, str]) -> None:
        """From now on, `model_of` gives a label to any model, and `deployments` has their models, by id."""
        before, self._deployments = self._deployments, {made: (of, _short(made)) for made, of in deployments.items()}
        # Nobody measures them any more. An id that the config gives may stay while its model has another name. They are
        # not shown either, see `_Shown`, but other processes may learn of this config a moment later.
        for labels in set(before.values()) - set(self._deployments.values()):
            for series in (self._in_flight, self._cooling):
                series.set(*labels, to=0)
        self._measured = Levels()
        self._model_of = model_of
        self._begin_deployments_at_zero()

    def exposition(self, counts: Counts | None, accept: str = "", *, ready: bool = True) -> tuple[bytes, str]:
        """All that was told up to the last `measured`: a text in the form that `accept` asks for, and its content type.

        `counts` is what the store says of jobs; without it, that is left out. `ready`: this process takes new work. May
        be called in a thread.
        """
        encode, content_type = choose_encoder(accept)
        now = [
            *_series_of([families.READY], [float(ready)]),
            *(_series_of(FROM_STORE, astuple(counts)) if counts else ()),
            _build_info(self._about),
        ]
        with self._scraping:
            now.extend(self._processes.collect())
            known = frozenset(self._deployments.values())
            return encode(_Shown(self._registry, self._files, self._spreads, known, now)), content_type

    # What `Metrics` is told.

    def request_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else OTHER
        self._requests.add(method, route, status)
        self._request_s.observe(method, route, value=seconds)

    def request_failed(self, route: str, error: str) -> None:
        self._errors.add(route, error)

    def response_created(self, model: str) -> None:
        self._created.add(self._model_of(model))

    def create_stored(self, seconds: float) -> None:
        self._create_s.observe(value=seconds)

    def response_ended(self, model: str, status: str) -> None:
        self._ended.add(self._model_of(model), status)

    def job_leased(self, model: str, waited_s: float | None, *, reclaimed: bool) -> None:
        if waited_s is not None:
            self._wait_s.observe(self._model_of(model), value=waited_s)
        if reclaimed:
            self._reclaimed.add(self._model_of(model))

    def run_began(self, model: str) -> None:
        self._begun.add(self._model_of(model))

    def run_ended(self, model: str, outcome: str, seconds: float, attempt: int) -> None:
        model = self._model_of(model)
        self._outcomes.add(model, outcome)
        if outcome == "ended":
            self._run_s.observe(model, value=seconds)
            self._attempt.observe(value=attempt)

    def events_written(self, count: int) -> None:
        self._events.add(amount=count)

    def flushed(self, size_bytes: int, seconds: float) -> None:
        self._flush_bytes.observe(value=size_bytes)
        self._flush_s.observe(value=seconds)

    def call_ended(self, deployment: str, operation: str, outcome: str, seconds: float) -> None:
        of = self._deployment(deployment)
        self._calls.add(*of, operation, outcome)
        self._call_s.observe(*of, operation, value=seconds)

    def first_event_came(self, deployment: str, seconds: float) -> None:
        self._first_s.observe(*self._deployment(deployment), value=seconds)

    def cooled_down(self, deployment: str) -> None:
        self._cooled.add(*self._deployment(deployment))

    def delivery_tried(self, outcome: str, seconds: float) -> None:
        self._deliveries.add(outcome)
        self._delivery_s.observe(value=seconds)

    def tokens_spent(self, model: str, tokens: Tokens) -> None:
        model = self._model_of(model)
        for kind, count in zip(_KINDS_OF_TOKENS, tokens, strict=True):
            self._tokens.add(model, kind, amount=count)

    def answered(self, command: str, seconds: float, error: StoreError | None) -> None:
        self._store_s.observe(command, value=seconds)
        if error is not None:
            self._store_errors.add(command, _kind_of(error))

    def loop_lagged(self, seconds: float) -> None:
        self._lag_s.observe(value=seconds)

    def config_reloaded(self, *, applied: bool) -> None:
        if self._reloads is not None:
            self._reloads.config_reloaded(applied=applied)

    def measured(self, levels: Levels) -> None:
        for one in self._all:
            one.hand_over()
        self._runs.set(to=levels.runs)
        self._exchanges.set(to=levels.store_exchanges)
        self._tasks.set(to=levels.tasks)
        for series, found in ((self._waiters, levels.waiters), (self._streams, levels.streams)):
            for kind, number in found.items():
                series.set(kind, to=number)
        before, self._measured = self._measured, levels
        of_deployments = (
            (self._in_flight, levels.calls, before.calls),
            (self._cooling, levels.cooling, before.cooling),
        )
        for series, found, known in of_deployments:
            for deployment, value in found.items():
                # Of thousands few change within a second, and to tell the library of one costs as much as ten of these.
                if known.get(deployment) != value:
                    series.set(*self._deployment(deployment), to=value)

    def _new_total(self, family: Family) -> Totals:
        made = Totals(Counter(family.name, family.help, family.labels, registry=self._registry))
        self._all.append(made)
        return made

    def _new_spread(self, family: Family) -> Spread:
        metric = Histogram(family.name, family.help, family.labels, registry=self._registry, buckets=family.buckets)
        made = self._spreads[family.name] = Spread(metric, family.buckets, family.labels, self._trace_of)
        self._all.append(made)
        return made

    def _new_level(self, family: Family) -> Level:
        # Of processes that have ended nothing is left, see `forget_levels`.
        return Level(
            Gauge(family.name, family.help, family.labels, registry=self._registry, multiprocess_mode="livesum")
        )

    def _begin_at_zero(self) -> None:
        """Show what alerts are made of before it happens: from nothing to one is no increase, in Prometheus's eyes."""
        for error in ("Unavailable", "Internal"):
            self._errors.add("/responses", error, amount=0)
        for outcome in Tried:
            self._deliveries.add(outcome.value, amount=0)
        for command in ("create", "lease", "append", "finish"):
            for kind in ("unavailable", "full"):
                self._store_errors.add(command, kind, amount=0)

    def _begin_deployments_at_zero(self) -> None:
        for model, deployment in dict.fromkeys(self._deployments.values()):
            self._cooled.add(model, deployment, amount=0)
            for outcome in ("ok", "limited", "failed", "timeout", "unreachable", "broken"):
                self._calls.add(model, deployment, "create", outcome, amount=0)
            self._created.add(model, amount=0)
            self._reclaimed.add(model, amount=0)
            for outcome in ("ended", "broke", "store_gone"):
                self._outcomes.add(model, outcome, amount=0)
            for status in Status:
                if status in TERMINAL:
                    self._ended.add(model, status.value, amount=0)

    def _deployment(self, deployment: str) -> tuple[str, str]:
        return self._deployments.get(deployment, (OTHER, OTHER))


_OF_DEPLOYMENTS = frozenset({families.IN_FLIGHT.name, families.COOLING.name})


class _Shown:
    """What one scrape shows, in the form in which the library takes it: what was counted, and what is so just now."""

    def __init__(
        self,
        registry: CollectorRegistry,
        shared: Shared | None,
        spreads: Mapping[str, Spread],
        deployments: Collection[tuple[str, str]],
        now: Sequence[Metric],
    ) -> None:
        self._spreads, self._deployments = spreads, deployments
        self._counted: Any = registry
        if shared is not None:
            self._counted = MultiProcessCollector(None, shared.directory)  # type: ignore[no-untyped-call]
        self._now = now

    def collect(self) -> Iterator[Metric]:
        for metric in self._counted.collect():
            if (spread := self._spreads.get(metric.name)) is not None:
                metric.samples = spread.with_exemplars(metric.samples)
            elif metric.name in _OF_DEPLOYMENTS:
                # One that is gone is not well: it would hide that all others of its model are not.
                metric.samples = [sample for sample in metric.samples if self._is_known(sample)]
            yield metric
        yield from self._now

    def _is_known(self, sample: Sample) -> bool:
        return (sample.labels["model"], sample.labels["deployment"]) in self._deployments


def _series_of(found: Sequence[Family], values: Sequence[float]) -> Iterator[Metric]:
    for family, value in zip(found, values, strict=True):
        yield GaugeMetricFamily(family.name, family.help, value=value)


def _build_info(about: Sequence[str]) -> Metric:
    info = GaugeMetricFamily(families.BUILD.name, families.BUILD.help, labels=families.BUILD.labels)
    info.add_metric(about, 1.0)
    return info


_HASH_LENGTH, _SHOWN_LENGTH = 64, 16


def _short(deployment: str) -> str:
    """An id as the logs have it, unless the config gives it."""
    return deployment[:_SHOWN_LENGTH] if len(deployment) == _HASH_LENGTH else deployment


def _kind_of(error: StoreError) -> str:
    kinds: dict[type[StoreError], str] = {
        StoreUnavailable: "unavailable",
        StoreFull: "full",
        StoreMisfit: "misfit",
    }
    return kinds.get(type(error), OTHER)
