"""Recorded traffic, replayed by an upstream: what comes out of Pollux is what the provider said.

The recordings are of our own writing; where there are some of real traffic, they are played too.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.recordings import STREAMS
from tests.support.replica import CACHED, NATIVE, Replica, make_config, running_replica
from tests.support.sse import read_stream
from tests.support.upstreams import running_exchange, running_replay

REAL_STREAMS = (
    "openai-apply-patch-tool.1",
    "openai-custom-tool.1",
    "openai-error.1",
    "openai-image-generation-tool.1",
    "openai-mcp-tool-approval.1",
    "openai-phase.1",
    "openai-reasoning-encrypted-content.1-part1",
    "openai-reasoning-encrypted-content.1-part2",
    "openai-reasoning-encrypted-content.1-part3",
    "openai-reasoning-encrypted-content.1-part4",
    "openai-web-search-tool.1",
)
NOT_LOGGED = {"response.created", "response.queued", "response.in_progress", "error"}
TERMINAL = {"response.completed", "response.failed", "response.incomplete"}


@pytest.fixture(
    params=[*(("our_recordings", name) for name in STREAMS), *(("real_recordings", name) for name in REAL_STREAMS)],
    ids=lambda param: param[1],
)
def recording(request: pytest.FixtureRequest) -> Path:
    """The file of one recorded stream."""
    folder, name = request.param
    file: Path = request.getfixturevalue(folder) / f"{name}.jsonl"
    return file


def load(recording: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in recording.read_text().splitlines() if line.strip()]


async def finished(replica: Replica, **body: Any) -> dict[str, Any]:
    """Create, and wait for the end."""
    async with replica.http() as http:
        answer = await http.post(
            "responses",
            json={"model": CACHED, "input": "hi", "background": True, **body},
            headers={"Prefer": "wait=20"},
        )
        made: dict[str, Any] = await answer.json()
        return made


async def test_a_recording_comes_out_with_the_same_output_model_and_usage(recording: Path, store_url: str) -> None:
    final = load(recording)[-1]["response"]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_replay(recording))
        replica = await stack.enter_async_context(running_replica(make_config(upstream.base_url), store_url))
        response = await finished(replica)

    assert response["status"] == final["status"]
    assert response["output"] == final["output"]
    assert response["id"].startswith("litellm_poll_")
    if final.get("model"):
        assert response["model"] == final["model"]
    if final.get("usage"):
        assert response["usage"].items() >= final["usage"].items()
    if final["status"] == "failed":
        assert response["error"] == final["error"]
    sent = upstream.requests[0].json
    assert sent["stream"] is True
    assert "background" not in sent


async def test_its_stream_holds_every_output_event_unchanged_but_for_its_number_and_resumes_anywhere(
    recording: Path, store_url: str
) -> None:
    recorded = [event for event in load(recording) if event["type"] not in NOT_LOGGED]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_replay(recording))
        config = make_config(upstream.base_url)
        here = await stack.enter_async_context(running_replica(config, store_url))
        there = await stack.enter_async_context(running_replica(config, store_url))
        http = await stack.enter_async_context(here.http())
        elsewhere = await stack.enter_async_context(there.http())

        created = await http.post(
            "responses", json={"model": CACHED, "input": "hi", "background": True, "stream": True}
        )
        events = await read_stream(created)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert [event["type"] for event in events[:3]] == sorted(NOT_LOGGED - {"error"}, key=_opening_order)
        assert [event["type"] for event in events[3:]] == [event["type"] for event in recorded]
        for event, original in zip(events[3:-1], recorded[:-1], strict=True):
            assert {**event, "sequence_number": 0} == {**original, "sequence_number": 0}
        assert [event["type"] in TERMINAL for event in events].count(True) == 1

        response_id = events[0]["response"]["id"]
        for last in range(-1, len(events) + 1):
            resumed = await elsewhere.get(f"responses/{response_id}?stream=true&starting_after={last}")
            assert await read_stream(resumed) == events[last + 1 :]


def _opening_order(kind: str) -> int:
    return ["response.created", "response.queued", "response.in_progress"].index(kind)


async def test_a_recorded_native_run_comes_through_with_composite_ids(recordings: Path, store_url: str) -> None:
    file = recordings / "background_mode.exchange.json"
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_exchange(file))
        pollux = await stack.enter_async_context(running_replica(make_config(upstream.base_url), store_url))
        sdk = await stack.enter_async_context(pollux.client())

        created = await sdk.responses.create(model=NATIVE, input="What is 2 + 2?", background=True)
        assert created.status == "queued"
        assert f";response_id:{raw_id_in(file)}" in decoded(created.id)
        seen = [(await sdk.responses.retrieve(created.id)) for _ in range(2)]
        assert [response.status for response in seen] == ["in_progress", "completed"]
        assert {response.id for response in seen} == {created.id}
        assert seen[-1].output_text == "2 + 2 equals 4."
    assert upstream.requests[0].json["background"] is True
    assert upstream.requests[0].headers["Authorization"] == "Bearer sk-upstream-secret"


async def test_a_recorded_native_stream_comes_through_and_resumes(recordings: Path, store_url: str) -> None:
    file = recordings / "background_mode_streaming_starting_after.exchange.json"
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_exchange(file))
        pollux = await stack.enter_async_context(running_replica(make_config(upstream.base_url), store_url))
        sdk = await stack.enter_async_context(pollux.client())

        events = [
            event
            async for event in await sdk.responses.create(
                model=NATIVE, input="What is 2 + 2?", background=True, stream=True
            )
        ]
        assert events[0].type == "response.created"
        response_id = events[0].response.id
        assert f";response_id:{raw_id_in(file)}" in decoded(response_id)
        resumed = [event async for event in await sdk.responses.retrieve(response_id, stream=True, starting_after=0)]
        assert resumed[0].sequence_number == 1
        assert resumed[-1].type == "response.completed"
        assert resumed[-1].response.id == response_id
    assert raw_id_in(file) not in json.dumps([event.to_dict() for event in [*events, *resumed]])


def raw_id_in(exchange: Path) -> str:
    """The id that the provider gave."""
    [raw_id] = set(re.findall(r"/v1/responses/(resp_\w+)", exchange.read_text()))
    return str(raw_id)


def decoded(response_id: str) -> str:
    return base64.b64decode(response_id.removeprefix("resp_")).decode()
