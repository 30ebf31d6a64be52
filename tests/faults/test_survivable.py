"""Deployments with a background mode of their own: their runs survive ours, and are cancelled when unwanted."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.replica import ALICE, create, make_config, replica_process, running_replica, with_output
from tests.support.sse import read_stream
from tests.support.upstreams import running_script, seen_by
from tests.support.waiting import wait_until

KEY = {"Authorization": f"Bearer {ALICE}"}
LONG = "tell me [[words=80]] [[delay_ms=60]]"


def survivable(upstream: str, **pollux: Any) -> dict[str, Any]:
    config = make_config(upstream, **pollux)
    config["model_list"][0]["model_info"] = {"upstream_background": True}
    return config


@pytest.mark.parametrize("streamed", [True, False])
async def test_after_a_kill_the_run_is_resumed_and_the_log_is_as_if_nothing_had_happened(
    streamed: bool, simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = survivable(simulator, lease_s=2)
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=KEY))
        response_id = await create(victim, LONG, stream=streamed)
        await with_output(victim, response_id)
        await victim.kill()
        survivor = await stack.enter_async_context(replica_process(config, store_url, tmp_path))

        answer = await http.get(f"{survivor.url}/v1/responses/{response_id}?wait=30")
        response = await answer.json()
        assert response["status"] == "completed"
        assert answer.headers["ETag"].startswith('"1.'), "the same log"
        if streamed:
            events = await read_stream(await http.get(f"{survivor.url}/v1/responses/{response_id}?stream=true"))
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
            assert "".join(deltas) == response["output"][0]["content"][0]["text"]
    requests = (await seen_by(simulator))["requests"]
    assert [request["method"] for request in requests].count("POST") == 1, "the provider saw one run"
    assert requests[0]["background"] is True
    assert [request["method"] for request in requests] == ["POST", "GET"], "and was asked to go on with it"


async def test_cancel_reaches_the_provider_though_no_worker_is_left(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = survivable(simulator, lease_s=2)
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=KEY))
        response_id = await create(victim, LONG)
        await with_output(victim, response_id)
        await victim.kill()
        idle = {**config, "pollux": {**config["pollux"], "worker_concurrency": 0}}
        other = await stack.enter_async_context(running_replica(idle, store_url))
        cancelled = await http.post(f"{other.url}/v1/responses/{response_id}/cancel")
        assert (await cancelled.json())["status"] == "cancelled"
        await wait_until(lambda: was_cancelled(simulator), what="the provider was told")


@pytest.mark.parametrize("how", ["cancel", "delete", "timeout"])
async def test_a_run_that_nobody_wants_any_more_is_cancelled_at_the_provider(
    how: str, simulator: str, store_url: str
) -> None:
    config = survivable(simulator, **({"max_run_s": 1} if how == "timeout" else {}))
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, LONG)
        await with_output(pollux, response_id)
        if how == "cancel":
            await http.post(f"responses/{response_id}/cancel")
        elif how == "delete":
            await http.delete(f"responses/{response_id}")
        await wait_until(lambda: was_cancelled(simulator), what="the provider was told")
        if how == "timeout":
            response = await (await http.get(f"responses/{response_id}")).json()
            assert (response["status"], response["error"]["code"]) == ("failed", "timeout")


async def was_cancelled(simulator: str) -> bool:
    return any(request["path"].endswith("/cancel") for request in (await seen_by(simulator))["requests"])


async def test_a_broken_stream_is_resumed_and_a_refused_resume_is_polled_for(store_url: str) -> None:
    """A provider that cuts the stream, then refuses to resume it, then still answers a plain GET."""
    final = {
        "id": "resp_up",
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []}],
    }
    polls = 0

    async def provider(request: web.Request) -> web.StreamResponse:
        nonlocal polls
        if request.method == "POST":
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await answer.prepare(request)
            begun = b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_up","status":"queued"}}'
            await answer.write(b"data: " + begun + b"\n\n")
            item = b'{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"id":"m"}}'
            await answer.write(b"data: " + item + b"\n\n")
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
            return answer
        if "stream" in request.query:
            assert request.query["starting_after"] == "1"
            return web.json_response({"error": {"message": "too late"}}, status=400)
        polls += 1
        return web.json_response(final if polls > 1 else {**final, "status": "in_progress", "output": []})

    async with (
        running_script(provider) as upstream,
        running_replica(survivable(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        response_id = await create(pollux, "hi", stream=True)
        events = await read_stream(await http.get(f"responses/{response_id}?stream=true"))
        assert [event["type"] for event in events[3:]] == ["response.output_item.added", "response.completed"]
        assert events[-1]["response"]["output"] == final["output"]
    assert polls == 2
