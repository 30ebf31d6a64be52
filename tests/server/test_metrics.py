"""Counting: what is gathered is handed over as if the library had been told of it, in one process and in several."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics

from server import __version__
from server.metrics import FAMILIES, SILENT, Counting, Levels, Metrics, Shared, forget_levels
from server.metrics.families import FROM_STORE, STORE_S, Kind
from server.metrics.files import keep_values
from server.metrics.gathering import Spread
from server.protocol.tokens import Tokens
from server.upstream.measured import CallOutcome
from storage import Counts, StoreError, StoreUnavailable
from tests.support.scraping import Scrape

DEPLOYMENT = "d" * 64
ANSWERS = [outcome.value for outcome in CallOutcome if outcome not in (CallOutcome.REFUSED, CallOutcome.ABANDONED)]


@pytest.fixture(autouse=True)
def _in_memory_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "set back at the end")
    yield
    keep_values(None)


def counting(shared: Shared | None = None) -> Counting:
    made = Counting(shared=shared)
    made.heed(lambda model: model if model == "m" else "other", {DEPLOYMENT: "m"})
    return made


def shown(one: Counting, counts: Counts | None = None) -> Scrape:
    return Scrape(one.exposition(counts)[0].decode())


@pytest.mark.parametrize("several", [False, True])
def test_no_level_is_shown_of_a_deployment_that_is_gone(several: bool, tmp_path: Path) -> None:
    """Whatever it was at: an alert on it would never end, or would never fire for the others of its model."""
    one = counting(Shared(str(tmp_path), 1) if several else None)
    one.heed(lambda model: model, {DEPLOYMENT: "m", "second": "m"})
    one.measured(Levels(calls={DEPLOYMENT: 2, "second": 3}, cooling={DEPLOYMENT: False, "second": True}))
    # The id of one stays, as the config gives it, while its model has another name.
    one.heed(lambda model: model, {DEPLOYMENT: "m", "second": "n"})
    one.measured(Levels(calls={DEPLOYMENT: 1, "second": 0}, cooling={DEPLOYMENT: True, "second": False}))
    scrape = shown(one)
    for level, expected in (("upstream_requests_active", [1, 0]), ("deployment_cooling_down", [1, 0])):
        found = {sample.labels["model"]: sample.value for sample in scrape.samples(level)}
        assert len(list(scrape.samples(level))) == 2
        assert [found["m"], found["n"]] == expected


def everything(metrics: Metrics) -> None:
    """Each call once."""
    metrics.request_answered("GET", "/responses", 200, 0.01)
    metrics.request_failed("/responses", "Internal")
    metrics.response_created("m")
    metrics.create_stored(0.01)
    metrics.loop_lagged(0.002)
    metrics.response_ended("m", "completed")
    metrics.job_leased("m", 0.1, reclaimed=True)
    metrics.run_began("m")
    metrics.run_ended("m", "ended", 1.0, 1)
    metrics.events_written(7)
    metrics.flushed(4096, 0.001)
    metrics.call_ended(DEPLOYMENT, "create", "ok", 2.0)
    metrics.first_event_came(DEPLOYMENT, 0.2)
    metrics.cooled_down(DEPLOYMENT)
    metrics.delivery_tried("told", 0.1)
    metrics.tokens_spent("m", Tokens(4, 3, 2, 1))
    metrics.answered("append", 0.001, StoreUnavailable("away"))
    metrics.config_reloaded(applied=True)
    metrics.measured(
        Levels(2, 3, {"cached": 4, "native": 0}, {"cached": 5}, {DEPLOYMENT: 6}, {DEPLOYMENT: True}, 7),
    )


def test_histograms_are_as_the_library_makes_them_one_by_one() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = [Histogram("a", "A.", ["b"], registry=registry, buckets=STORE_S) for registry in (ours, theirs)]
    spread = Spread(made[0], STORE_S)
    for _ in range(2):
        for value in (0.0, 0.00025, 0.0003, 0.5, 5.0, 5.1, 1e9, *STORE_S):
            spread.observe("x", value=value)
            made[1].labels("x").observe(value)
        spread.observe("y", value=1.0)
        made[1].labels("y").observe(1.0)
        spread.hand_over()
        assert samples(ours) == pytest.approx(samples(theirs))


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_every_metric_moves() -> None:
    one = counting()
    everything(SILENT)
    everything(one)
    scrape = shown(one, Counts(8, 9, 10, 11.0, 12.5, 13, 14))
    for family in FAMILIES:
        name = family.name.removeprefix("pollux_") + ("_count" if family.kind is Kind.HISTOGRAM else "")
        assert scrape.value(name) > 0, name
    from_store: tuple[str, ...] = ("jobs_queued", "jobs_leased", "webhook_endpoints_owed", "jobs_overdue_seconds")
    from_store = (*from_store, "webhooks_overdue_seconds", "store_memory_bytes", "store_memory_limit_bytes")
    assert [scrape.value(name) for name in from_store] == [8, 9, 10, 11, 12.5, 13, 14]
    kinds = ("input", "cached_input", "output", "reasoning")
    assert [scrape.value("tokens_total", kind=kind) for kind in kinds] == [4, 3, 2, 1]


@pytest.mark.parametrize("processes", [1, 2])
def test_buckets_have_the_newest_trace_that_fell_into_them(processes: int, tmp_path: Path) -> None:
    trace: dict[str, str] | None = None
    shared = [Shared(str(tmp_path), number) if processes > 1 else None for number in range(1, processes + 1)]
    one, *others = (Counting(shared=place, trace_of=lambda: trace) for place in shared)
    for counting_ in (one, *others):
        for trace, seconds in (({"trace_id": "a"}, 0.2), ({"trace_id": "b"}, 0.21), (None, 0.22)):  # noqa: B007
            counting_.request_answered("GET", "/responses", 200, seconds)
        trace = {"trace_id": "slow"}
        counting_.request_answered("GET", "/responses", 200, 1e6)
        counting_.measured(Levels())
    text = one.exposition(None, "application/openmetrics-text; version=1.0.0")[0].decode()
    found = {
        line.partition('le="')[2].partition('"')[0]: line.partition(" # ")[2]
        for line in text.splitlines()
        if line.startswith("pollux_http_request_duration_seconds_bucket") and " # " in line
    }
    assert set(found) == {"0.25", "+Inf"}
    assert found["0.25"].startswith('{trace_id="b"} 0.21 ')
    assert found["+Inf"].startswith('{trace_id="slow"} 1e+06 ') or found["+Inf"].startswith(
        '{trace_id="slow"} 1000000.0 '
    )


def test_without_the_store_its_metrics_are_left_out() -> None:
    text = shown(counting()).text
    assert not any(family.name in text for family in FROM_STORE)


def test_what_alerts_look_at_is_zero_before_it_happens() -> None:
    """A series that begins at one is no increase, so the first of its kind would wake nobody."""
    one = counting()
    one.measured(Levels())
    scrape = shown(one)
    for name, labels in (
        ("http_errors_total", {"error": "Internal"}),
        ("responses_ended_total", {"model": "m", "status": "failed"}),
        ("jobs_reclaimed_total", {"model": "m"}),
        ("runs_ended_total", {"model": "m", "outcome": "broke"}),
        ("deployment_cooldowns_total", {"model": "m"}),
        *(("upstream_requests_total", {"operation": "create", "outcome": outcome}) for outcome in ANSWERS),
        ("store_errors_total", {"command": "create", "kind": "full"}),
        ("webhook_deliveries_total", {"outcome": "failed"}),
    ):
        assert [sample.value for sample in scrape.samples(name, **labels)] == [0], name


def test_what_runs_is_told() -> None:
    one = Counting(role="worker")
    assert shown(one).value("build_info", version=__version__, python=platform.python_version(), role="worker") == 1
    for ready in (True, False):
        assert Scrape(one.exposition(None, ready=ready)[0].decode()).value("ready") == ready


def test_what_the_config_does_not_have_is_other() -> None:
    one = counting()
    one.response_created("of a client")
    one.call_ended("of another config", "create", "ok", 1.0)
    one.answered("append", 0.1, StoreError("?"))
    one.measured(Levels())
    scrape = shown(one)
    assert scrape.value("responses_created_total", model="other") == 1
    assert scrape.value("upstream_requests_total", model="other", deployment="other") == 1
    assert scrape.value("store_errors_total", kind="other") == 1


def test_several_processes_are_shown_together_and_the_levels_of_a_dead_one_are_dropped(tmp_path: Path) -> None:
    one, other = (counting(Shared(str(tmp_path), number)) for number in (1, 2))
    everything(one)
    everything(other)
    for shows in (one, other):
        scrape = shown(shows, Counts(8, 9))
        for name, value in (("responses_created_total", 2), ("runs_active", 4), ("flush_size_bytes_sum", 8192)):
            assert scrape.value(name) == value
        assert scrape.value("jobs_queued") == 8
        assert scrape.value("flush_size_bytes_bucket", le="4096.0") == 2
    forget_levels(Shared(str(tmp_path), 1))
    scrape = shown(other)
    assert [scrape.value(name) for name in ("processes", "runs_active", "responses_created_total")] == [1, 2, 2]
    # Who takes its place goes on with what it counted.
    everything(counting(Shared(str(tmp_path), 1)))
    scrape = shown(other)
    assert [scrape.value(name) for name in ("processes", "runs_active", "responses_created_total")] == [2, 4, 3]
