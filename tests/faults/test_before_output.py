"""Until output has begun, whatever passes is tried again on the next deployment, however the provider says it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.replica import CACHED, Replica, create, ended, make_config, replica_process, running_replica
from tests.support.scripts import (
    COMPLETED,
    CREATED,
    KEEPALIVE,
    OUTPUT,
    TEXT,
    WELL,
    Reply,
    answering,
    event,
    failed,
    plain,
    streaming,
)
from tests.support.sse import read_stream
from tests.support.upstreams import Upstream, running_script
from tests.support.waiting import wait_until

SAID = event("error", error={"type": "too_many_requests", "code": None, "message": "Slow down."})
GARBLED = b'data: {"type":"response.cre\n\n'


async def outcome(replica: Replica, **body: Any) -> dict[str, Any]:
    response_id = await create(replica, "hi", **body)
    async with replica.http() as http:
        return await ended(http, response_id)


def two_deployments(one: Upstream, other: Upstream, **pollux: Any) -> dict[str, Any]:
    config = make_config(one.base_url, **pollux)
    params = {"model": f"openai/{CACHED}", "api_base": other.base_url, "api_key": "sk-other"}
    config["model_list"].append({"model_name": CACHED, "litellm_params": params})
    return config


PASSING = {
    "keepalives, then the connection breaks": streaming(KEEPALIVE, KEEPALIVE, KEEPALIVE, cut=True),
    "keepalives, then a clean end": streaming(KEEPALIVE, CREATED, KEEPALIVE),
    "created, then the connection breaks": streaming(CREATED, cut=True),
    "a clean end without a word": streaming(),
    "only [DONE]": streaming(b"data: [DONE]\n\n"),
    "comments alone": streaming(b": one\n\n", b": two\n\n"),
    "an event that nobody knows, then a clean end": streaming(CREATED, event("response.novelty", about=1)),
    "Azure's error event": streaming(CREATED, SAID),
    "an error event without a code": streaming(event("error", message="The server had an error.", code=None)),
    "an error with a number for a code": streaming(b'data: {"error":{"code":503,"message":"x"}}\n\n'),
    "a named error": streaming(b'event: error\ndata: {"type":"overloaded_error","message":"x"}\n\n'),
    "failed with server_error": streaming(CREATED, failed(code="server_error", message="x")),
    "failed with rate_limit_exceeded": streaming(CREATED, failed(code="rate_limit_exceeded", message="x")),
    "failed without a reason": streaming(CREATED, failed()),
    "error, then failed": streaming(CREATED, SAID, failed()),
    "a garbled event": streaming(GARBLED),
    "JSON that holds an error": plain(200, {"error": {"message": "x", "type": "server_error"}}),
    "JSON that holds an error, called a stream": plain(200, {"error": "overloaded"}, label="text/event-stream"),
    "JSON of a failed response": plain(200, {"status": "failed", "output": [], "error": {"code": "server_error"}}),
    "an empty answer": plain(200, b""),
    "a page": plain(200, b"<html><title>Sign in</title></html>", label="text/html"),
    "503": plain(503, {"detail": "warming up"}),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", PASSING)
async def test_a_passing_failure_is_tried_again(fault: str, streamed: bool, store_url: str) -> None:
    handler = answering([PASSING[fault]], then=streaming(*WELL))
    async with (
        running_script(handler) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux, stream=streamed)
        assert (response["status"], response["error"]) == ("completed", None)
        assert response["output"][0]["content"][0]["text"] == TEXT
        assert len(upstream.requests) == 2
        if streamed:
            async with pollux.http() as http:
                events = await read_stream(await http.get(f"responses/{response['id']}?stream=true"))
            assert [one["sequence_number"] for one in events] == list(range(7))
            assert not {"keepalive", "response.novelty"} & {one["type"] for one in events}


@pytest.mark.parametrize("fault", ["Azure's error event", "a clean end without a word", "failed with server_error"])
async def test_a_limited_deployment_hands_its_jobs_to_the_other_and_cools_down(fault: str, store_url: str) -> None:
    async with (
        running_script(answering([PASSING[fault]])) as limited,
        running_script(answering([streaming(*WELL)])) as well,
        running_replica(two_deployments(limited, well), store_url) as pollux,
    ):
        responses = await asyncio.gather(*(outcome(pollux) for _ in range(8)))
        assert [response["status"] for response in responses] == ["completed"] * 8
        seen = len(limited.requests)
        assert 1 <= seen <= 8
        assert (await outcome(pollux))["status"] == "completed"
        assert len(limited.requests) == seen, "it cools down"


FINAL = {
    "invalid_prompt": streaming(CREATED, failed(code="invalid_prompt", message="no")),
    "context_length_exceeded": streaming(event("error", code="context_length_exceeded", message="no")),
    "cyber_policy": streaming(CREATED, failed(code="cyber_policy", message="no")),
    "unknown_parameter": plain(400, {"error": {"code": "unknown_parameter", "message": "no"}}),
    "content_filter": plain(200, {"error": {"code": "content_filter", "message": "no"}}),
    "invalid_image": plain(
        200, {"status": "failed", "output": [], "error": {"code": "invalid_image", "message": "no"}}
    ),
}


@pytest.mark.parametrize("code", FINAL)
async def test_what_another_try_can_not_change_is_final_at_once(code: str, store_url: str) -> None:
    async with (
        running_script(answering([FINAL[code]])) as one,
        running_script(answering([FINAL[code]])) as other,
        running_replica(two_deployments(one, other), store_url) as pollux,
    ):
        response = await outcome(pollux)
        assert (response["status"], response["error"]) == ("failed", {"code": code, "message": "no"})
        assert len(one.requests) + len(other.requests) == 1


OF_NO_USE = {
    "no quota": plain(429, {"error": {"code": "insufficient_quota", "message": "You exceeded your quota."}}),
    "no quota, behind a 200": streaming(CREATED, failed(code="insufficient_quota", message="You exceeded your quota.")),
    "a wrong key": plain(401, {"error": {"code": "invalid_api_key", "message": "Incorrect API key"}}),
    "no such model here": plain(404, {"error": {"code": "model_not_found", "message": "no such model"}}),
}


@pytest.mark.parametrize("fault", OF_NO_USE)
async def test_an_account_that_can_not_serve_is_asked_once_and_then_the_other_one(fault: str, store_url: str) -> None:
    async with (
        running_script(answering([OF_NO_USE[fault]])) as poor,
        running_script(answering([streaming(*WELL)])) as well,
        running_replica(two_deployments(poor, well), store_url) as pollux,
    ):
        responses = await asyncio.gather(*(outcome(pollux) for _ in range(6)))
        assert [response["status"] for response in responses] == ["completed"] * 6
    async with (
        running_script(answering([OF_NO_USE[fault]])) as poor,
        running_replica(make_config(poor.base_url), store_url) as pollux,
    ):
        assert (await outcome(pollux))["status"] == "failed"
        assert len(poor.requests) == 1


@pytest.mark.parametrize(
    "limited",
    [
        streaming(CREATED, failed(code="rate_limit_exceeded", message="Please try again in 1.2s.")),
        plain(429, {"error": {"code": "rate_limit_exceeded", "message": "Please retry after 1.2 seconds."}}),
        plain(429, {"error": {"code": "rate_limit_exceeded", "message": "x"}}, retry_after_ms="1200", Retry_After="60"),
    ],
)
async def test_a_time_is_heeded_however_it_is_told(limited: Reply, store_url: str) -> None:
    handler = answering([limited], then=streaming(*WELL))
    async with (
        running_script(handler) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        began = time.monotonic()
        assert (await outcome(pollux))["status"] == "completed"
        assert 1.1 < time.monotonic() - began < 5


async def test_after_output_nothing_is_tried_again(store_url: str) -> None:
    cut = streaming(CREATED, OUTPUT[0], failed(code="server_error", message="half way"))
    async with (
        running_script(answering([cut])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux)
        assert (response["status"], response["error"]["message"]) == ("failed", "half way")
        assert len(upstream.requests) == 1


async def test_a_failure_that_stays_is_told_in_the_providers_words(store_url: str) -> None:
    async with (
        running_script(
            answering([streaming(CREATED, failed(code="rate_limit_exceeded", message="Full."))])
        ) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux)
        assert (response["status"], response["error"]) == (
            "failed",
            {"code": "rate_limit_exceeded", "message": "Full."},
        )
        assert len(upstream.requests) == 3


async def test_a_tool_that_failed_ends_nothing(store_url: str) -> None:
    broken_tool = event("response.mcp_call.failed", output_index=0, item_id="mcp_1", error={"message": "no such file"})
    handler = answering([streaming(CREATED, OUTPUT[0], broken_tool, *OUTPUT[1:], COMPLETED)])
    async with (
        running_script(handler) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux, stream=True)
        assert (response["status"], response["output"][0]["content"][0]["text"]) == ("completed", TEXT)
        async with pollux.http() as http:
            events = await read_stream(await http.get(f"responses/{response['id']}?stream=true"))
    assert next(one for one in events if "error" in one)["error"] == {"message": "no such file"}


async def test_keepalives_are_not_kept_wherever_they_come(store_url: str) -> None:
    frames = [frame for one in WELL for frame in (KEEPALIVE, one)]
    async with (
        running_script(answering([streaming(*frames)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux, stream=True)
        async with pollux.http() as http:
            events = await read_stream(await http.get(f"responses/{response['id']}?stream=true"))
        assert "keepalive" not in [one["type"] for one in events]
        assert [one["sequence_number"] for one in events] == list(range(7))


async def test_keepalives_before_a_crash_do_not_hinder_a_second_run(store_url: str, tmp_path: Path) -> None:
    async def hang(request: Any) -> Any:
        await streaming(KEEPALIVE, KEEPALIVE)(request)
        await asyncio.sleep(60)

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_script(answering([hang], then=streaming(*WELL))))
        config = make_config(upstream.base_url, lease_s=1)
        victim = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        response_id = await create(victim, "hi", stream=True)
        await wait_until(lambda: len(upstream.requests) == 1)
        survivor = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        await victim.kill()
        async with survivor.http() as http:
            assert (await ended(http, response_id))["status"] == "completed"


REFUSES_STREAM = plain(
    400,
    {
        "error": {
            "message": "Your organization must be verified to stream this model.",
            "type": "invalid_request_error",
            "param": "stream",
            "code": "unsupported_value",
        }
    },
)


async def test_a_provider_that_refuses_streaming_is_asked_once_more_without(store_url: str) -> None:
    whole = plain(200, orjson.loads(COMPLETED.split(b"data: ")[1])["response"])
    async with (
        running_script(answering([REFUSES_STREAM, whole])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux)
        assert (response["status"], response["output"][0]["content"][0]["text"]) == ("completed", TEXT)
        assert [request.json["stream"] for request in upstream.requests] == [True, False]


async def test_a_client_that_asked_for_a_stream_hears_that_there_is_none(store_url: str) -> None:
    async with (
        running_script(answering([REFUSES_STREAM])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux, stream=True)
        assert response["status"] == "failed"
        assert "must be verified" in response["error"]["message"]
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(("store", "background"), [(False, None), (True, True), (None, True)])
async def test_a_provider_runs_in_its_own_background_only_what_it_may_store(
    store: bool | None, background: bool | None, store_url: str
) -> None:
    async with running_script(answering([streaming(*WELL)])) as upstream:
        config = make_config(upstream.base_url)
        config["model_list"][0]["model_info"] = {"upstream_background": True}
        async with running_replica(config, store_url) as pollux:
            assert (await outcome(pollux, store=store))["status"] == "completed"
        assert upstream.requests[0].json.get("background") is background
