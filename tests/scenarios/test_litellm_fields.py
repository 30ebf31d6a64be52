"""Fields that only LiteLLM knows: heeded where we have the thing, and never sent to a provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from tests.support.refusals import refusal
from tests.support.replica import CACHED, NATIVE, make_config, running_replica
from tests.support.scripts import RAW_ID, WELL, answering, plain, streaming
from tests.support.upstreams import running_script

OURS_TO_KNOW = {
    "num_retries": 0,
    "timeout": 30,
    "fallbacks": [CACHED],
    "tags": ["a"],
    "litellm_metadata": {"team": "x"},
    "litellm_call_id": "1",
    "guardrails": ["pii"],
    "cache": {"no-cache": True},
    "drop_params": True,
    "mock_response": "no",
    "mock_testing_fallbacks": True,
    "api_base": "https://evil.example",
    "api_key": "sk-clients-own",
    "extra_headers": {"X": "y"},
    "langfuse_secret": "s",
    "user_api_key_hash": "h",
}
KEPT = {"metadata": {"tags": "mine"}, "temperature": 0.5, "prompt_cache_key": "k", "unheard_of": [1]}
WHOLE = {"id": RAW_ID % 0, "object": "response", "status": "completed", "output": []}


@pytest.mark.parametrize(
    "mode",
    [{"model": CACHED}, {"model": CACHED, "stream": True}, {"model": NATIVE, "background": True}, {"background": True}],
)
async def test_they_are_never_sent_to_a_provider(mode: dict[str, Any], store_url: str) -> None:
    cached = "model" not in mode
    reply = streaming(*WELL) if cached or mode.get("stream") else plain(200, WHOLE)
    async with (
        running_script(answering([reply])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        body = {"model": CACHED, "input": "x", **mode, **OURS_TO_KNOW, **KEPT}
        answer = await http.post("responses", json=body, headers={"Prefer": "wait=20"})
        assert answer.status == 200
        assert "sk-clients-own" not in await answer.text()
        (request,) = upstream.requests
        assert not OURS_TO_KNOW.keys() & request.json.keys()
        assert {name: request.json[name] for name in KEPT} == KEPT


@pytest.mark.parametrize("background", [True, False])
async def test_the_number_of_retries_is_heeded(background: bool, store_url: str) -> None:
    async with (
        running_script(answering([plain(503, {"error": "down"}, retry_after_ms="1")])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        for retries in (0, 1):
            before = len(upstream.requests)
            body = {"model": CACHED, "input": "x", "background": background, "num_retries": retries}
            await http.post("responses", json=body, headers={"Prefer": "wait=20"})
            assert len(upstream.requests) - before == retries + 1


@pytest.mark.parametrize("wish", [{"timeout": 0.2}, {"timeout": 20, "stream_timeout": 0.2}])
async def test_a_time_limit_is_heeded(wish: dict[str, float], store_url: str) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(20)
        return web.Response()

    async with (
        running_script(hang) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        body = {"model": CACHED, "input": "x", "num_retries": 0, "stream": "stream_timeout" in wish, **wish}
        assert (await refusal(await http.post("responses", json=body))).status == 504
        job = {**body, "background": True, "stream": False}
        response = await (await http.post("responses", json=job, headers={"Prefer": "wait=20"})).json()
        assert (response["status"], response["error"]["code"]) == ("failed", "timeout")


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("num_retries", "3", "invalid_type"),
        ("num_retries", 1000, "invalid_value"),
        ("max_retries", -1, "invalid_value"),
        ("timeout", "5", "invalid_type"),
        ("timeout", 0, "invalid_value"),
        ("stream_timeout", True, "invalid_type"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(field: str, value: Any, code: str, pollux: Any) -> None:
    async with pollux.http() as http:
        answer = await refusal(await http.post("responses", json={"model": CACHED, "input": "x", field: value}))
        assert answer.fields == (400, "invalid_request_error", code, field)
