"""Tracing: one trace from the client's request over the queue and the provider to the webhook, and nothing secret."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server.tracing import spans as recording
from tests.support.collector import Collector, running_collector
from tests.support.receiver import running_receiver
from tests.support.replica import (
    ALICE,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    create,
    ended,
    free_port,
    make_config,
    replica_process,
    running_replica,
    with_output,
)
from tests.support.scripts import DONE_ITEM, TEXT, Reply, answering, event, lifecycle, plain, streaming
from tests.support.upstreams import running_script, seen_by
from tests.support.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "baggage": "user=somebody"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
POST = "POST /v1/responses"
CHAT = f"chat {CACHED}"
USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 18,
}
MADE = {"id": "resp_0badc0de0badc0de0", "object": "response", "model": "gpt-5.2-2026", "usage": USAGE}
WHOLE = {**MADE, "status": "completed", "output": [DONE_ITEM]}
STREAM = streaming(
    lifecycle("response.created", "in_progress"),
    event("response.output_item.done", output_index=0, item=DONE_ITEM),
    event("response.completed", response=WHOLE),
)


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector that the environment names, as an operator would do it."""
    async with running_collector() as one:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", one.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield one


async def post(replica: Replica, body: dict[str, Any], **headers: str) -> aiohttp.ClientResponse:
    async with replica.http() as http:
        answer = await http.post("responses", json={"input": "x", **body}, headers=headers)
        assert answer.status == 200, await answer.text()
        await answer.read()
        return answer


def well(body: dict[str, Any], *, cached: bool = False) -> Reply:
    return STREAM if cached or body.get("stream") else plain(200, WHOLE)


# One trace.


@pytest.mark.slow
async def test_a_job_is_one_trace_over_several_replicas_also_when_the_first_is_killed(
    collector: Collector, simulator: str, store_url: str, tmp_path: Path
) -> None:
    story = "[[words=60]] [[delay_ms=20]] [[silence_after=20]] [[fail_times=1]]"
    async with running_receiver() as receiver:
        hook = {"url": f"{receiver.url}/", "secret": SECRET}
        pollux: dict[str, Any] = {"lease_s": 1, "webhooks": [hook], "webhook_allow_private": True, "log_format": "json"}
        api = make_config(simulator, worker_concurrency=0, **pollux)
        async with running_replica(api, store_url) as here:
            async with replica_process(make_config(simulator, **pollux), store_url, tmp_path) as victim:
                async with here.client() as sdk:
                    made = await sdk.responses.create(model=CACHED, input=story, background=True, extra_headers=CONTEXT)
                await with_output(here, made.id)
                await victim.kill()
            async with (
                replica_process(make_config(simulator, **pollux), store_url, tmp_path) as heir,
                here.http() as http,
            ):
                assert (await ended(http, made.id))["status"] == "completed"
                await receiver.receive(1)
                webhook = await collector.one("POST webhook", TRACE)
                log = (tmp_path / f"replica-{heir.url.rpartition(':')[2]}.log").read_text()
    server, producer = await collector.one(POST, TRACE), await collector.one("create jobs", TRACE)
    run, call = await collector.one("run jobs", TRACE), await collector.one(CHAT, TRACE)
    assert [span.kind for span in (server, producer, run, call, webhook)] == [
        *("server", "producer", "consumer", "client", "client")
    ]
    parents = [PARENT, server.span_id, producer.span_id, run.span_id, producer.span_id]
    assert [span.parent_id for span in (server, producer, run, call, webhook)] == parents
    assert (run.of("pollux.attempt"), run.of("pollux.response_status")) == (2, "completed")
    assert run.of("messaging.message.id") == webhook.of("messaging.message.id") == made.id
    told = [request["traceparent"] for request in (await seen_by(simulator))["requests"] if request["method"] == "POST"]
    assert [one.split("-")[1] for one in told] == [TRACE, TRACE], "both runs, each by its own span"
    assert told[1].split("-")[2] == call.span_id != told[0].split("-")[2]
    got = receiver.received[0].headers
    assert got["traceparent"] == f"00-{TRACE}-{webhook.span_id}-01"
    assert "baggage" not in got
    lines = [json.loads(line) for line in log.splitlines() if made.id in line]
    for message in ("response started", "response ended"):
        [line] = [line for line in lines if line["message"] == message]
        assert (line["trace_id"], line["span_id"]) == (TRACE, run.span_id)
    started = next(line for line in lines if line["message"] == "response started")
    assert started["request_id"] == server.of("pollux.request_id"), "that of the request which created it"


for_every_mode = pytest.mark.parametrize(
    "body",
    [
        {"model": CACHED},
        {"model": CACHED, "stream": True},
        {"model": NATIVE, "background": True},
        {"model": CACHED, "background": True},
    ],
    ids=["proxied", "streamed", "native", "cached"],
)


@for_every_mode
async def test_the_provider_is_told_of_the_trace_and_its_call_of_what_it_made(
    body: dict[str, Any], collector: Collector, store_url: str
) -> None:
    cached = body == {"model": CACHED, "background": True}
    async with (
        running_script(answering([well(body, cached=cached)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        await post(pollux, body, **CONTEXT)
        call = await collector.one(f"chat {body['model']}", TRACE)
        server = await collector.one(POST, TRACE)
        above = await collector.one("run jobs", TRACE) if cached else server
        [request] = upstream.requests
    assert request.headers["traceparent"] == f"00-{TRACE}-{call.span_id}-01"
    assert request.headers["tracestate"] == "vendor=1"
    assert "baggage" not in request.headers
    assert (call.parent_id, call.kind, call.failed) == (above.span_id, "client", False)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": body["model"],
        "gen_ai.request.stream": cached or bool(body.get("stream")),
        "gen_ai.response.model": "gpt-5.2-2026",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
    }
    assert {name: call.of(name) for name in expected} == expected
    assert call.of("gen_ai.response.id")
    assert ("gen_ai.response.time_to_first_chunk" in call.attributes) == expected["gen_ai.request.stream"]
    assert {name: server.of(name) for name in ("http.request.method", "http.route", "pollux.owner")} == {
        "http.request.method": "POST",
        "http.route": "/v1/responses",
        "pollux.owner": "alice",
    }
    assert server.resource["service.name"] == "pollux"


async def test_each_try_has_a_span_with_the_kind_of_its_error(collector: Collector, store_url: str) -> None:
    error = {"error": {"message": "a-word-of-the-provider", "type": "server_error", "code": None, "param": None}}
    async with (
        running_script(answering([plain(429, error), plain(500, error), STREAM])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response_id = await create(pollux, "x")
        async with pollux.http() as http:
            assert (await ended(http, response_id))["status"] == "completed"
        await wait_until(lambda: len(collector.named(CHAT)) == 3, what="three calls")
        assert [span.of("error.type") for span in collector.named(CHAT)] == ["429", "500", None]
        assert [span.failed for span in collector.named(CHAT)] == [True, True, False]
        assert len({request.headers["traceparent"] for request in upstream.requests}) == 3


async def test_a_failed_response_marks_its_run(collector: Collector, simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux:
        response_id = await create(pollux, "[[http_status=400]]")
        async with pollux.http() as http:
            assert (await ended(http, response_id))["status"] == "failed"
        run = await collector.one("run jobs")
    assert run.failed
    assert re.fullmatch(r"[a-z_]+", run.of("error.type"))


# What is taken from whom, and what is sent.


async def test_who_has_no_key_makes_no_spans(collector: Collector, simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux:
        async with pollux.http("sk-wrong") as http:
            assert (await http.post("responses", json={}, headers=CONTEXT)).status == 401
            assert (await http.get(f"{pollux.url}/readyz", headers=CONTEXT)).status == 200
        await post(pollux, {"model": CACHED})
        await collector.one(POST)
    assert TRACE not in {span.trace_id for span in collector.spans}
    assert {span.name for span in collector.spans} == {POST, CHAT}


async def test_a_context_that_is_none_begins_a_trace_and_writes_no_lines(
    collector: Collector, simulator: str, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    strange = [
        {"traceparent": "a" * 5000},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {**CONTEXT, "tracestate": ",".join(f"k{number}=v" for number in range(40))},
        {**CONTEXT, "tracestate": "a word of the client's"},
    ]
    async with running_replica(make_config(simulator), store_url) as pollux:
        for headers in strange:
            await post(pollux, {"model": CACHED}, **headers)
    assert len({span.trace_id for span in collector.spans if span.name == POST}) == 3
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_a_trace_that_is_not_sampled_goes_on_unsampled(
    collector: Collector, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with (
        running_script(answering([plain(200, WHOLE)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        await post(pollux, {"model": CACHED}, **CONTEXT)
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-00", upstream.requests[0].headers["traceparent"])
    assert collector.spans == []


@pytest.mark.parametrize(
    ("variable", "value", "sent"), [("OTEL_PROPAGATORS", "none", None), ("OTEL_SDK_DISABLED", "true", CONTEXT)]
)
async def test_opentelemetrys_own_variables_are_heeded(
    variable: str,
    value: str,
    sent: dict[str, str] | None,
    collector: Collector,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_script(answering([plain(200, WHOLE)])) as upstream:
        monkeypatch.setenv(variable, value)
        async with running_replica(make_config(upstream.base_url), store_url) as pollux:
            await post(pollux, {"model": CACHED}, **CONTEXT)
    assert upstream.requests[0].headers.get("traceparent") == (sent and sent["traceparent"])
    assert {span.trace_id == TRACE for span in collector.spans} == ({False} if sent is None else set())


# Nothing secret.


@for_every_mode
async def test_no_span_holds_a_key_a_secret_or_a_word_of_the_client_or_the_model(
    body: dict[str, Any], collector: Collector, store_url: str
) -> None:
    words = {
        "input": "a-word-of-the-prompt",
        "instructions": "a-word-of-the-instructions",
        "metadata": {"topic": "a-word-of-the-metadata"},
        "tools": [
            {"type": "mcp", "server_label": "a", "server_url": "https://x.example", "authorization": "sk-of-tool"}
        ],
        "user": "a-word-of-the-user",
    }
    cached = body == {"model": CACHED, "background": True}
    async with running_receiver() as receiver, running_script(answering([well(body, cached=cached)])) as upstream:
        hook = {"url": f"{receiver.url}/a-path-of-the-hook?token=a-token-of-the-hook", "secret": SECRET}
        config = make_config(upstream.base_url, webhooks=[hook], webhook_allow_private=True)
        async with running_replica(config, store_url) as pollux:
            async with pollux.http() as http:
                answer = await http.post(
                    "responses?secret=a-word-of-the-query", json={**words, **body}, headers=CONTEXT
                )
                assert answer.status == 200, await answer.text()
                await answer.read()
            await collector.one("POST webhook" if cached else f"chat {body['model']}", TRACE)
    raw = b"".join(collector.raw)
    assert CHAT.encode() in raw or NATIVE.encode() in raw
    for hidden in (
        *("a-word-of", "sk-of-tool", ALICE, MASTER_KEY, "sk-upstream-secret", SECRET, "-of-the-hook"),
        *(TEXT, "user=somebody"),
    ):
        assert str(hidden).encode() not in raw, hidden
    assert {span.events for span in collector.spans} == {0}, "no exceptions with their texts"


async def test_no_error_of_a_provider_is_quoted(collector: Collector, store_url: str) -> None:
    said = "you sent a-word-of-the-prompt with key sk-leaked"
    error = {"error": {"message": said, "type": "invalid_request_error", "code": said, "param": None}}
    async with (
        running_script(answering([plain(400, error)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        assert (await http.post("responses", json={"model": CACHED, "input": "x"})).status == 400
        response_id = await create(pollux, "x")
        await ended(http, response_id)
        run = await collector.one("run jobs")
    assert run.of("error.type") == "_OTHER"
    assert b"a-word-of" not in b"".join(collector.raw)


# The collector is away, or comes late.


async def test_a_collector_that_is_away_costs_one_line_and_no_time(
    simulator: str, store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    monkeypatch.setattr(recording, "CLOSED_WITHIN_S", 0.5)
    async with running_replica(make_config(simulator), store_url) as pollux:
        for _ in range(30):
            await post(pollux, {"model": CACHED})
        await wait_until(lambda: "can't be exported" in caplog.text)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([record for record in loud if "can't be exported" in record.message]) == 1
    assert not [record for record in loud if not record.name.startswith("pollux")], "nothing of the library's"


async def test_what_is_left_at_the_end_is_handed_over(
    collector: Collector, simulator: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    async with running_replica(make_config(simulator), store_url) as pollux:
        await post(pollux, {"model": CACHED})
        assert collector.spans == []
    assert {span.name for span in collector.spans} == {POST, CHAT}


# Webhooks without tracing, and exemplars.


async def test_without_tracing_the_clients_context_goes_on_as_it_came(simulator: str, store_url: str) -> None:
    async with running_receiver() as receiver:
        config = make_config(
            simulator, webhooks=[{"url": f"{receiver.url}/", "secret": SECRET}], webhook_allow_private=True
        )
        async with running_replica(config, store_url) as pollux:
            await post(pollux, {"model": CACHED, "background": True}, **CONTEXT)
            await receiver.receive(1)
    got = receiver.received[0].headers
    assert (got["traceparent"], got["tracestate"]) == (CONTEXT["traceparent"], "vendor=1")
    assert "baggage" not in got


async def test_histograms_point_to_traces(collector: Collector, simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux:
        await post(pollux, {"model": CACHED}, **CONTEXT)
        call = await collector.one(CHAT, TRACE)
        shown = f'# {{span_id="{call.span_id}",trace_id="{TRACE}"}}'
        headers = {"Authorization": f"Bearer {MASTER_KEY}", "Accept": "application/openmetrics-text; version=1.0.0"}
        async with aiohttp.ClientSession(headers=headers) as http:

            async def exemplified() -> bool:
                text = await (await http.get(f"{pollux.url}/metrics")).text()
                lines = [line for line in text.splitlines() if line.startswith("pollux_upstream_request_duration_s")]
                return any(shown in line or f'trace_id="{TRACE}"' in line for line in lines)

            await wait_until(exemplified)
            plain_text = await http.get(f"{pollux.url}/metrics", headers={"Accept": "text/plain"})
            assert TRACE not in await plain_text.text()
