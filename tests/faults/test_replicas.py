"""Two replicas, processes of their own, on one store: load, sudden death, and orderly leave."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.replica import ALICE, CACHED, Replica, create, make_config, replica_process, with_output
from tests.support.sse import events_of, read_stream
from tests.support.upstreams import nothing_open, seen_by
from tests.support.waiting import wait_until

KEY = {"Authorization": f"Bearer {ALICE}"}


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


async def run_one(http: aiohttp.ClientSession, replicas: list[Replica], number: int) -> dict[str, Any]:
    """Create at one replica, long-wait at the other until it has ended, as a patient client does."""
    here, there = replicas[number % 2], replicas[(number + 1) % 2]
    body = {
        "model": CACHED,
        "input": f"input-{number:04}-of-many. [[duration_s=4]] [[rate=50]]",
        "background": True,
    }
    created = await (await http.post(f"{here.url}/v1/responses", json=body, headers=KEY)).json()
    url = f"{there.url}/v1/responses/{created['id']}?wait=20"
    response: dict[str, Any] = created
    while response["status"] in ("queued", "in_progress"):
        answer = await http.get(url, headers=KEY)
        assert answer.status == 200, await answer.text()
        response = await answer.json()
    return response


@pytest.mark.slow
async def test_two_hundred_jobs_at_once_all_complete_each_with_the_answer_to_its_own_input(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica_process(config, store_url, tmp_path)) for _ in range(2)]
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        responses = await asyncio.gather(*(run_one(http, replicas, number) for number in range(200)))

    assert [response["status"] for response in responses] == ["completed"] * 200
    for number, response in enumerate(responses):
        text = text_of(response)
        assert f"input-{number:04}-of-many" in text
        assert text.count("-of-many") == 1, "nothing of another job"
        assert len(text.split()) >= 190, "whole: 4 s at 50 events a second"
    posts = [request for request in (await seen_by(simulator))["requests"] if request["method"] == "POST"]
    assert len(posts) == 200
    assert len({request["body_sha256"] for request in posts}) == 200


@pytest.mark.slow
async def test_a_replica_killed_under_two_hundred_jobs_loses_none_that_is_not_streamed(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, lease_s=2)
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        # None of them ends before the kill: the first run falls silent after three seconds, the second one does not.
        story = "[[words=80]] [[delay_ms=50]] [[silence_after=60]] [[fail_times=1]]"
        texts = (f"job-{n} {story}" for n in range(200))
        ids = await asyncio.gather(*(create(victim, text) for text in texts))
        streamed = await create(victim, f"streamed {story}", stream=True)
        untouched = await create(victim, "silent [[first_delay_ms=3000]]", stream=True)
        await asyncio.gather(*(with_output(victim, one) for one in (*ids, streamed)))

        async def has_text() -> bool:
            answer = await http.get(f"{victim.url}/v1/responses/{streamed}", headers=KEY)
            return bool(text_of(await answer.json()))

        await wait_until(has_text, what="the streamed one has text")
        await victim.kill()
        survivor = await stack.enter_async_context(replica_process(config, store_url, tmp_path))

        answers = [await http.get(f"{survivor.url}/v1/responses/{one}?wait=30", headers=KEY) for one in ids]
        for number, answer in enumerate(answers):
            response = await answer.json()
            assert response["status"] == "completed"
            assert f"job-{number} " in text_of(response)
            assert answer.headers["ETag"].startswith('"2.'), "a second run, in a log of its own"

        # A second run can't follow the output of a first one in one stream: it fails, and says why.
        events = await read_stream(await http.get(f"{survivor.url}/v1/responses/{streamed}?stream=true", headers=KEY))
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] == "worker_lost"
        assert text_of(events[-1]["response"]), "what had arrived is kept"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        # Where nothing had been said yet, a second run is as good as the first.
        events = await read_stream(await http.get(f"{survivor.url}/v1/responses/{untouched}?stream=true", headers=KEY))
        assert events[-1]["type"] == "response.completed"


async def test_a_replica_that_is_told_to_end_hands_over_what_it_cannot_finish(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, drain_s=2)
    async with AsyncExitStack() as stack:
        leaving = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        short = await create(leaving, "short [[words=20]] [[delay_ms=50]]")
        long = await create(leaving, "long [[words=50]] [[delay_ms=50]] [[silence_after=40]] [[fail_times=1]]")
        for one in (short, long):
            await with_output(leaving, one)
        waiting = asyncio.create_task(http.get(f"{leaving.url}/v1/responses/{long}?wait=50", headers=KEY))
        body = {"model": CACHED, "input": "[[first_delay_ms=20000]]", "background": True, "stream": True}
        events = events_of(await http.post(f"{leaving.url}/v1/responses", json=body, headers=KEY))
        await anext(events)
        staying = await stack.enter_async_context(replica_process(config, store_url, tmp_path))

        leaving.signal(signal.SIGTERM)
        answer = await waiting
        assert (await answer.json())["status"] == "in_progress", "waits are answered when runs are handed over"
        with pytest.raises(aiohttp.ClientPayloadError):
            async for _ in events:
                pass
        assert leaving.process is not None
        assert await asyncio.wait_for(leaving.process.wait(), 10) == 0

        for one, tag in ((short, '"1.'), (long, '"2.')):
            answer = await http.get(f"{staying.url}/v1/responses/{one}?wait=30", headers=KEY)
            assert (await answer.json())["status"] == "completed"
            assert answer.headers["ETag"].startswith(tag)


async def test_a_worker_that_was_paused_comes_back_and_changes_nothing(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, lease_s=2)
    async with AsyncExitStack() as stack:
        paused = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        response_id = await create(paused, "whose [[words=80]] [[delay_ms=50]]")
        await with_output(paused, response_id)
        other = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        paused.signal(signal.SIGSTOP)
        try:
            answer = await http.get(f"{other.url}/v1/responses/{response_id}?wait=30", headers=KEY)
            response = await answer.json()
        finally:
            paused.signal(signal.SIGCONT)
        assert response["status"] == "completed"
        await wait_until(lambda: nothing_open(simulator), what="the paused one closed its upstream")
        again = await http.get(f"{paused.url}/v1/responses/{response_id}", headers=KEY)
        assert await again.json() == response
        assert again.headers["ETag"] == answer.headers["ETag"]


async def test_log_lines_are_json_where_asked_and_name_each_edge(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with replica_process(make_config(simulator, log_format="json"), store_url, tmp_path) as replica:
        response_id = await create(replica, "a secret thought")
        async with replica.http() as http:
            await http.get(f"responses/{response_id}?wait=10")
        (file,) = tmp_path.glob("replica-*.log")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    edges = [line["message"] for line in lines if line.get("response_id") == response_id]
    assert edges == ["response created", "response started", "response ended"]
    assert "secret thought" not in file.read_text()
