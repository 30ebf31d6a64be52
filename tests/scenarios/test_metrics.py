"""`GET /metrics`: who may read it, and what moves when something happens."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import pytest
from aiohttp import web

from server.api import authentication
from server.config import parse_config
from server.jobs import counts
from server.metrics import FAMILIES, Kind
from server.process.app import running
from server.process.assembly import Role
from server.system.sockets import bound
from storage import Store, StoreUnavailable
from storage.jobs import Jobs
from tests.support.obliging import obliging
from tests.support.receiver import answers, running_receiver
from tests.support.refusals import refusal
from tests.support.replica import (
    ALICE,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    create,
    ended,
    make_config,
    replica_process,
    running_replica,
    with_output,
)
from tests.support.scraping import scraped
from tests.support.subscribers import subscribed
from tests.support.upstreams import running_script
from tests.support.waiting import wait_until

METRICS_KEY = "sk-test-metrics-9999"
SECRET_WORDS = "a-word-of-a-client"


@pytest.fixture(autouse=True)
def _fresh_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "KEPT_S", 0.0)


async def get(replica: Replica, key: str | None) -> aiohttp.ClientResponse:
    async with aiohttp.ClientSession() as http:
        answer = await http.get(f"{replica.url}/metrics", headers={"Authorization": f"Bearer {key}"} if key else {})
        await answer.read()
        return answer


# Who may read it.


async def test_it_wants_the_master_key_or_the_metrics_key_which_opens_nothing_else(
    simulator: str, store_url: str
) -> None:
    async with running_replica(make_config(simulator, metrics_key=METRICS_KEY), store_url) as pollux:
        for key in (None, ALICE, "wrong", METRICS_KEY[:-1]):
            assert (await refusal(await get(pollux, key))).status == 401
        for key in (MASTER_KEY, METRICS_KEY):
            answer = await get(pollux, key)
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        async with pollux.http(METRICS_KEY) as http:
            assert (await http.get("responses")).status == 401


async def test_without_any_key_it_is_open_on_this_machine_unless_there_is_a_metrics_key(
    simulator: str, store_url: str
) -> None:
    config = make_config(simulator, keys=[]) | {"general_settings": {}}
    async with running_replica(config, store_url) as pollux:
        assert (await get(pollux, None)).status == 200
    config["pollux"]["metrics_key"] = METRICS_KEY
    async with running_replica(config, store_url) as pollux:
        assert (await get(pollux, None)).status == 401
        assert (await get(pollux, "wrong")).status == 401
        assert (await get(pollux, METRICS_KEY)).status == 200


async def test_a_process_that_only_runs_jobs_and_has_no_key_shows_them_to_its_own_machine_alone(
    simulator: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(simulator, keys=[], store=store_url) | {"general_settings": {}}
    with bound("127.0.0.1", 0) as sockets:
        async with running(parse_config(config, environ={}), sockets, Role.WORKER):
            worker = Replica(f"http://127.0.0.1:{sockets[0].getsockname()[1]}")
            assert (await get(worker, None)).status == 200
            monkeypatch.setattr(authentication, "is_loopback", lambda address: address != "127.0.0.1")
            assert "metrics_key" in (await refusal(await get(worker, None))).message


async def test_a_scraper_may_prefer_openmetrics(pollux: Replica) -> None:
    headers = {"Authorization": f"Bearer {MASTER_KEY}", "Accept": "application/openmetrics-text; version=1.0.0"}
    async with aiohttp.ClientSession(headers=headers) as http:
        answer = await http.get(f"{pollux.url}/metrics")
        assert answer.content_type == "application/openmetrics-text"
        assert (await answer.text()).endswith("# EOF\n")


# What is shown.


async def test_exactly_what_the_table_has_is_shown(pollux: Replica) -> None:
    found = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type, family.documentation)
        for family in (await scraped(pollux)).families
        if family.name.startswith("pollux_")
    }
    assert found == {(family.name, family.kind.value, family.help) for family in FAMILIES}


def test_the_names_are_as_prometheus_wants_them() -> None:
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
        if family.kind is Kind.HISTOGRAM:
            assert family.name.endswith(("_seconds", "_bytes", "_attempts"))
            assert sorted(family.buckets) == list(family.buckets)


async def test_labels_are_bounded_and_hold_nothing_of_a_client(store_url: str) -> None:
    async with running_script(obliging()) as upstream:
        config = make_config(upstream.base_url)
        wildcard = {"model": "openai/*", "api_base": upstream.base_url, "api_key": "sk-upstream-secret"}
        config["model_list"].append({"model_name": "openai/*", "litellm_params": wildcard})
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            for number in range(5):
                body = {"model": f"openai/{SECRET_WORDS}-{number}", "input": SECRET_WORDS, "background": True}
                await ended(http, (await (await http.post("responses", json=body)).json())["id"])
                await http.post("responses", json={**body, "background": False})
                await http.post("responses", json={**body, "model": SECRET_WORDS})
                await http.get(f"responses/{SECRET_WORDS}-{number}")
                await http.get(f"{pollux.url}/{SECRET_WORDS}/{number}?{SECRET_WORDS}={number}")
                await http.request("PROPFIND", "responses")
                await http.request("GET", f"{pollux.url}/openai/deployments/{SECRET_WORDS}-{number}/responses/")
            scrape = await scraped(pollux)
    for word in (SECRET_WORDS, "PROPFIND", ALICE, "alice", "sk-", "litellm_poll_", "127.0.0.1"):
        assert word not in scrape.text
    models = {
        sample.labels["model"] for family in scrape.families for sample in family.samples if "model" in sample.labels
    }
    assert models == {CACHED, NATIVE, "openai/*"}
    assert scrape.value("http_requests_total", method="other") == 5
    assert scrape.value("http_requests_total", route="none", status="404") == 5
    assert scrape.value("http_requests_total", method="GET", route="/responses", status="200") == 5
    assert scrape.value("responses_ended_total", model="openai/*") == 5
    assert scrape.value("http_errors_total", route="/responses/{id}", error="ResponseNotFound") == 5
    assert scrape.value("http_errors_total", error="Internal") == 0


async def test_ready_is_what_readyz_says(pollux: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    scrape = await scraped(pollux)
    assert scrape.value("ready") == 1
    assert scrape.value("store_memory_bytes") > 0
    assert pollux.context is not None
    pollux.context.phase.leaving = True
    assert (await scraped(pollux)).value("ready") == 0
    pollux.context.phase.leaving = False

    async def away(_of_the_store: object) -> NoReturn:
        raise StoreUnavailable("away")

    monkeypatch.setattr(Jobs, "count", away)
    assert (await scraped(pollux)).value("ready") == 1, "it asks the store what /readyz asks it"
    monkeypatch.setattr(Store, "ping", away)
    scrape = await scraped(pollux)
    assert list(scrape.samples("ready")) != []
    assert scrape.value("ready") == 0
    assert list(scrape.samples("jobs_queued")) == list(scrape.samples("store_memory_bytes")) == []


# What moves.


async def test_a_cached_response_moves_what_belongs_to_it(pollux: Replica) -> None:
    async with pollux.http() as http:
        response = await ended(http, await create(pollux, "[[words=30]] [[delay_ms=10]]"))
        usage = response["usage"]
    scrape = await scraped(pollux)
    assert scrape.value("http_requests_total", method="POST", route="/responses", status="200") == 1
    assert scrape.value("http_request_duration_seconds_count", method="POST", route="/responses") == 1
    assert scrape.value("responses_created_total", model=CACHED) == 1
    assert scrape.value("response_create_duration_seconds_count") == 1
    create_s = scrape.value("response_create_duration_seconds_sum")
    assert 0 < create_s < scrape.value("http_request_duration_seconds_sum", method="POST", route="/responses")
    assert scrape.value("responses_ended_total", model=CACHED, status="completed") == 1
    assert scrape.value("responses_ended_total", model=NATIVE) == 0
    assert scrape.value("runs_started_total", model=CACHED) == 1
    assert scrape.value("runs_ended_total", model=CACHED, outcome="ended") == 1
    assert scrape.value("run_duration_seconds_count", model=CACHED) == 1
    assert 0.25 < scrape.value("run_duration_seconds_sum", model=CACHED) < 60
    assert scrape.value("job_wait_seconds_count", model=CACHED) == 1
    assert scrape.value("job_wait_seconds_bucket", model=CACHED, le="60.0") == 1
    assert scrape.value("job_attempts_bucket", le="1.0") == 1
    assert scrape.value("events_written_total") > 30
    assert scrape.value("flush_size_bytes_count") == scrape.value("flush_duration_seconds_count") > 0
    assert scrape.value("flush_size_bytes_sum") > 1000
    assert scrape.value("upstream_requests_total", model=CACHED, operation="create", outcome="ok") == 1
    assert scrape.value("upstream_request_duration_seconds_count", model=CACHED, operation="create") == 1
    first_s = scrape.value("upstream_first_event_seconds_sum", model=CACHED)
    assert 0 < first_s < scrape.value("upstream_request_duration_seconds_sum", model=CACHED)
    assert scrape.value("tokens_total", model=CACHED, kind="input") == usage["input_tokens"]
    assert scrape.value("tokens_total", model=CACHED, kind="output") == usage["output_tokens"]
    for command in ("create", "lease", "append", "finish", "read"):
        assert scrape.value("store_command_duration_seconds_count", command=command) > 0
    assert scrape.value("store_errors_total") == 0


async def test_the_event_loop_is_watched_all_the_time(pollux: Replica) -> None:
    await until(pollux, lambda scrape: scrape.value("event_loop_lag_seconds_count") >= 3)
    lag_s = (await scraped(pollux)).value("event_loop_lag_seconds_sum")
    time.sleep(0.3)
    await until(pollux, lambda scrape: scrape.value("event_loop_lag_seconds_sum") > lag_s + 0.19)


async def test_proxied_and_native_responses_move_tokens_and_calls(pollux: Replica) -> None:
    async with pollux.http() as http:
        proxied = await (await http.post("responses", json={"model": CACHED, "input": "proxied"})).json()
        native = await (await http.post("responses", json={"model": NATIVE, "input": "n", "background": True})).json()
        await http.get(f"responses/{native['id']}?wait=20")
        await http.post(f"responses/{native['id']}/cancel")
        await http.delete(f"responses/{native['id']}")
    scrape = await scraped(pollux)
    assert scrape.value("tokens_total", model=CACHED, kind="output") == proxied["usage"]["output_tokens"]
    assert scrape.value("tokens_total", model=NATIVE, kind="output") > 0
    assert scrape.value("upstream_first_event_seconds_count") == 0
    for operation in ("create", "read", "delete"):
        assert scrape.value("upstream_requests_total", model=NATIVE, operation=operation, outcome="ok") >= 1
    assert scrape.value("upstream_requests_total", model=NATIVE, operation="cancel") == 1


async def test_jobs_that_are_queued_leased_and_cancelled(simulator: str, store_url: str) -> None:
    async with (
        running_replica(make_config(simulator, worker_concurrency=1), store_url) as pollux,
        pollux.http() as http,
    ):
        ids = [await create(pollux, "[[first_delay_ms=60000]]") for _ in range(3)]
        await until(pollux, lambda scrape: scrape.value("runs_active") == 1)
        scrape = await scraped(pollux)
        assert (scrape.value("jobs_queued"), scrape.value("jobs_leased")) == (2, 1)
        await until(pollux, lambda scrape: scrape.value("upstream_requests_active", model=CACHED) == 1)
        for one in ids:
            await http.post(f"responses/{one}/cancel")
        await until(pollux, lambda scrape: scrape.value("runs_ended_total", outcome="stopped") >= 1)
        await until(pollux, lambda scrape: scrape.value("runs_active") == 0)
        scrape = await scraped(pollux)
        assert (scrape.value("jobs_queued"), scrape.value("jobs_leased")) == (0, 0)
        assert scrape.value("responses_ended_total", status="cancelled") == 3
        assert scrape.value("upstream_requests_total", outcome="abandoned") >= 1


async def test_a_job_whose_worker_died_is_reclaimed(simulator: str, store_url: str, tmp_path: Path) -> None:
    config = make_config(simulator, lease_s=1)
    async with replica_process(config, store_url, tmp_path) as first:
        one = await create(first, "[[words=20]] [[delay_ms=50]]")
        await with_output(first, one)
        await first.kill()
    async with running_replica(config, store_url) as second, second.http() as http:
        assert (await ended(http, one))["status"] == "completed"
        scrape = await scraped(second)
        assert scrape.value("jobs_reclaimed_total", model=CACHED) == 1
        assert scrape.value("job_wait_seconds_count") == 0, "it was queued before"
        assert (scrape.value("job_attempts_count"), scrape.value("job_attempts_sum")) == (1, 2)


async def test_waiters_and_streams_are_counted_as_long_as_they_last(pollux: Replica) -> None:
    one = await create(pollux, "[[words=3]] [[first_delay_ms=60000]]", stream=True)
    native = {"model": NATIVE, "input": "[[first_delay_ms=60000]]", "background": True}
    async with pollux.http() as http:
        other = (await (await http.post("responses", json=native)).json())["id"]
        waits = [asyncio.create_task(_read(http, f"responses/{each}?wait=50")) for each in (one, other)]
        stream = await http.get(f"responses/{one}?stream=true")
        proxied = await http.post(
            "responses", json={"model": CACHED, "input": "[[words=9]] [[delay_ms=9000]]", "stream": True}
        )
        await proxied.content.readany()
        async with subscribed(http):
            for name, kind in [
                *(("waiters", kind) for kind in ("cached", "native")),
                *(("streams_open", kind) for kind in ("cached", "forwarded", "events")),
            ]:
                await until(pollux, lambda scrape, name=name, kind=kind: scrape.value(name, kind=kind) == 1)
        for wait in waits:
            wait.cancel()
        stream.close()
        proxied.close()
        await until(pollux, lambda scrape: scrape.value("waiters") == scrape.value("streams_open") == 0)


async def _read(http: aiohttp.ClientSession, path: str) -> bytes:
    async with http.get(path) as answer:
        return await answer.read()


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, "refused"), (429, "limited"), (503, "failed"), (None, "unreachable")]
)
async def test_calls_that_fail_are_told_apart_and_the_circuit_is_shown(
    status: int | None, outcome: str, store_url: str
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        if status is None:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"error": {"message": "no"}}, status=status or 500)

    async with running_script(refuse) as upstream:
        config = {**make_config(upstream.base_url), "router_settings": {"num_retries": 0, "cooldown_time": 60}}
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            assert (await http.post("responses", json={"model": CACHED, "input": "hi"})).status >= 400
            scrape = await scraped(pollux)
            assert scrape.value("upstream_requests_total", outcome=outcome, operation="create") == 1
            assert scrape.value("upstream_requests_total") == 1
            cools = int(outcome != "refused")
            assert scrape.value("deployment_cooldowns_total", model=CACHED) == cools
            assert scrape.value("deployment_cooling_down", model=CACHED) == cools
            assert scrape.value("deployment_cooling_down", model=NATIVE) == 0


async def test_a_provider_that_is_silent_and_one_that_breaks_off(simulator: str, store_url: str) -> None:
    config = make_config(simulator, stream_timeout_s=0.5) | {"router_settings": {"num_retries": 0}}
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        for text in ("[[words=50]] [[silence_after=5]]", "[[words=50]] [[cut_after=5]]"):
            assert (await ended(http, await create(pollux, text)))["status"] == "failed"
        scrape = await scraped(pollux)
        assert scrape.value("upstream_requests_total", outcome="timeout") == 1
        assert scrape.value("upstream_requests_total", outcome="broken") == 1
        assert scrape.value("responses_ended_total", status="failed") == 2


async def test_webhooks_are_counted_by_outcome(simulator: str, store_url: str) -> None:
    async with running_receiver() as receiver:
        receiver.behaviour["/gone"] = answers(410)
        hooks = [{"url": f"{receiver.url}{path}", "secret": SECRET} for path in ("/well", "/gone")]
        config = make_config(simulator, webhooks=hooks, webhook_allow_private=True)
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            await ended(http, await create(pollux, "told"))
            await until(
                pollux,
                lambda scrape: all(
                    scrape.value("webhook_deliveries_total", outcome=outcome) == 1 for outcome in ("told", "failed")
                ),
            )
            assert (await scraped(pollux)).value("webhook_delivery_duration_seconds_count") == 2


SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBjb25maWcgMTIzNDU2Nzg5MA=="


async def until(replica: Replica, condition: Any) -> None:
    async def holds() -> bool:
        return bool(condition(await scraped(replica)))

    await wait_until(holds, timeout_s=20)
