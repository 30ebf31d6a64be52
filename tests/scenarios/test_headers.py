"""Headers on their way through, and what the log tells of a failure."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.support.replica import CACHED, NATIVE, Replica, create, ended, make_config, running_replica
from tests.support.scripts import CREATED, RAW_ID, WELL, Reply, answering, failed, plain, streaming
from tests.support.upstreams import running_script

SENT = {
    "OpenAI-Beta": "responses=experimental",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
    "X-Client-Request-Id": "mine-1",
}
TOLD = {
    "x_request_id": "req_theirs",
    "x_ratelimit_remaining_tokens": "7",
    "retry_after_ms": "20",
    "openai_processing_ms": "5",
    "x_internal": "secret",
}
WHOLE = {"id": RAW_ID % 0, "object": "response", "status": "completed", "output": []}
MODES: dict[str, dict[str, Any]] = {
    "proxied": {"model": CACHED},
    "streamed": {"model": CACHED, "stream": True},
    "native": {"model": NATIVE, "background": True},
    "cached": {"model": CACHED, "background": True},
}


def reply_for(body: dict[str, Any], mode: str) -> Reply:
    return streaming(*WELL) if body.get("stream") or mode == "cached" else plain(200, WHOLE, **TOLD)


@pytest.mark.parametrize("mode", MODES)
async def test_a_clients_headers_reach_the_provider_in_every_mode(mode: str, store_url: str) -> None:
    body = {**MODES[mode], "input": "x"}
    async with (
        running_script(answering([reply_for(body, mode)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        headers = {**SENT, "Cookie": "a=b", "Prefer": "wait=20"}
        answer = await http.post("responses", json=body, headers=headers)
        assert answer.status == 200
        await answer.read()
        (request,) = upstream.requests
        assert {name: request.headers[name] for name in SENT} == SENT
        assert "Cookie" not in request.headers


async def test_a_header_that_can_not_be_sent_on_is_left_out(store_url: str) -> None:
    async with (
        running_script(answering([plain(200, WHOLE)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        headers = {"tracestate": "x" * 2000, "OpenAI-Beta": "ü"}
        answer = await http.post("responses", json=MODES["proxied"], headers=headers)
        assert answer.status == 200
        assert not {"tracestate", "OpenAI-Beta"} & set(upstream.requests[0].headers)


@pytest.mark.parametrize("mode", ["proxied", "native"])
async def test_a_providers_headers_reach_the_client(mode: str, store_url: str) -> None:
    async with (
        running_script(answering([plain(200, WHOLE, **TOLD)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        answer = await http.post("responses", json=MODES[mode], headers={"X-Request-Id": "mine"})
        assert answer.headers["X-Request-Id"] == "mine"
        assert answer.headers["x-upstream-request-id"] == "req_theirs"
        assert answer.headers["x-ratelimit-remaining-tokens"] == "7"
        assert answer.headers["openai-processing-ms"] == "5"
        assert "x-internal" not in answer.headers


@pytest.mark.parametrize("name", ["x-request-id", "apim-request-id", "request-id"])
async def test_a_providers_request_id_is_found_under_each_name(name: str, store_url: str) -> None:
    async with (
        running_script(answering([plain(200, WHOLE, **{name.replace("-", "_"): "req_theirs"})])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        answer = await http.post("responses", json=MODES["proxied"])
        assert answer.headers["x-upstream-request-id"] == "req_theirs"


async def test_a_providers_headers_reach_the_client_of_a_stream_and_of_a_refusal(store_url: str) -> None:
    refusal = plain(429, {"error": {"message": "Full."}}, Retry_After="7", **TOLD)
    streamed = answering([streaming(*WELL)])

    async def handler(request: Any) -> Any:
        return await (streamed if request.headers.get("OpenAI-Beta") else refusal)(request)

    async with running_script(handler) as upstream:
        config = make_config(upstream.base_url)
        config["litellm_settings"]["num_retries"] = 0
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            answer = await http.post("responses", json=MODES["proxied"])
            assert answer.status == 429
            assert answer.headers["x-upstream-request-id"] == "req_theirs"
            assert (answer.headers["retry-after-ms"], answer.headers["Retry-After"]) == ("20", "7")
            answer = await http.post("responses", json=MODES["streamed"], headers={"OpenAI-Beta": "x"})
            assert answer.content_type == "text/event-stream"


async def test_a_refusal_that_tells_its_time_in_words_has_a_retry_after(store_url: str) -> None:
    refusal = plain(429, {"error": {"message": "Please try again in 2.5s."}})
    async with running_script(answering([refusal])) as upstream:
        config = make_config(upstream.base_url)
        config["litellm_settings"]["num_retries"] = 0
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            answer = await http.post("responses", json=MODES["proxied"])
            assert answer.headers["Retry-After"] == "3"


def failures_in(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if "failed" in record.getMessage()]


async def outcome(replica: Replica) -> dict[str, Any]:
    response_id = await create(replica, "my secret prompt")
    async with replica.http() as http:
        return await ended(http, response_id)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            plain(400, {"error": {"code": "invalid_prompt", "message": "no"}}, x_request_id="req_1"),
            {"code": "invalid_prompt", "reason": "no", "upstream_status": 400, "upstream_request_id": "req_1"},
        ),
        (
            streaming(CREATED, failed(code="invalid_prompt", message="Key sk-0123456789abcdef is odd.")),
            {"code": "invalid_prompt", "reason": "Key sk-… is odd."},
        ),
    ],
)
async def test_the_log_tells_once_why_a_response_failed(
    reply: Reply, told: dict[str, Any], store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pollux")
    async with (
        running_script(answering([reply])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux)
        assert response["status"] == "failed"
    (line,) = failures_in(caplog)
    assert line["levelname"] == "WARNING"
    assert {name: line[name] for name in told} == told
    assert (line["response_id"], line["owner"], line["model"]) == (response["id"], "alice", CACHED)
    assert line["request_id"].startswith("req_")
    assert len(line["deployment"]) == 16
    assert "my secret prompt" not in caplog.text


async def test_the_log_tells_why_a_proxied_request_failed(store_url: str, caplog: pytest.LogCaptureFixture) -> None:
    refusal = plain(400, {"error": {"code": "invalid_prompt", "message": "no"}}, x_request_id="req_1")
    async with (
        running_script(answering([refusal])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        await http.post("responses", json=MODES["proxied"], headers={"X-Request-Id": "mine"})
    (line,) = failures_in(caplog)
    assert (line["request_id"], line["code"], line["reason"]) == ("mine", "invalid_prompt", "no")
    assert (line["upstream_status"], line["upstream_request_id"]) == (400, "req_1")
