"""What may happen to a run may happen to one at a provider that speaks another API, with the same outcome."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_replicas import text_of
from tests.faults.test_store import ready, server_pid
from tests.support.replica import Replica, create, make_config, replica_process, running_replica, with_output
from tests.support.sse import read_stream
from tests.support.upstreams import seen_by
from tests.support.waiting import wait_until

Json = dict[str, Any]

CHAT, MESSAGES = "mistral-large", "claude-sonnet-4-5"
each_model = pytest.mark.parametrize("model", [CHAT, MESSAGES])


def config(simulator: str, **pollux: Any) -> Json:
    made = make_config(simulator, **pollux)
    made["litellm_settings"]["responses"]["background_mode"]["polling_via_cache"] = "all"
    for model in (f"mistral/{CHAT}", f"anthropic/{MESSAGES}"):
        params = {"model": model, "api_base": simulator, "api_key": "sk-upstream-secret"}
        made["model_list"].append({"model_name": model.partition("/")[2], "litellm_params": params})
    return made


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that may be stopped: nobody else's. Its users wait for it for very long, if nothing stops them."""
    monkeypatch.setattr("storage.connection.ANSWER_TIMEOUT_S", 60)
    return f"embedded://{tmp_path / 'store'}"


@pytest.mark.slow
@each_model
async def test_a_run_whose_replica_is_killed_in_the_middle_is_completed_by_another(
    model: str, simulator: str, store_url: str, tmp_path: Path
) -> None:
    settings = config(simulator, lease_s=2)
    # None of them ends before the kill: the first run falls silent, the second one does not.
    story = "[[words=80]] [[delay_ms=20]] [[silence_after=30]] [[fail_times=1]]"
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(replica_process(settings, store_url, tmp_path))
        ids = [await create(victim, f"job-{number} {story}", model) for number in range(5)]
        streamed = await create(victim, f"streamed {story}", model, stream=True)
        for one in (*ids, streamed):
            await with_output(victim, one)
        await victim.kill()
        survivor = await stack.enter_async_context(replica_process(settings, store_url, tmp_path))
        http = await stack.enter_async_context(survivor.http())
        for number, one in enumerate(ids):
            answer = await http.get(f"responses/{one}?wait=30")
            response = await answer.json()
            assert response["status"] == "completed"
            assert text_of(response).startswith(f"You said: job-{number} ")
            assert len(text_of(response).split()) >= 80, "whole"
            assert answer.headers["ETag"].startswith('"2.'), "a second run, in a log of its own"
        # A second run can't follow the output of a first one in one stream.
        events = await read_stream(await http.get(f"responses/{streamed}?stream=true"))
        final = events[-1]["response"]
        assert (final["status"], final["error"]["code"]) == ("failed", "worker_lost")
        assert final["output"], "what had arrived is kept"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def proxied(replica: Replica, model: str, text: str, previous: str | None, *, stream: bool) -> Json:
    """The final object of a proxied response that continues another one."""
    body = {"model": model, "input": text, "previous_response_id": previous, "stream": stream}
    async with replica.http() as http:
        answer = await http.post("responses", json=body)
        response: Json = (await read_stream(answer))[-1]["response"] if stream else await answer.json()
        assert response["status"] == "completed"
        return response


@pytest.mark.slow
async def test_a_rolling_restart_keeps_chains_of_proxied_responses(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    settings = config(simulator, drain_s=2)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica_process(settings, store_url, tmp_path)) for _ in range(2)]
        previous, turns = None, 0
        for leaving in (0, 1):
            for model in (CHAT, MESSAGES):
                for replica in replicas:
                    made = await proxied(replica, model, f"turn-{turns}.", previous, stream=turns % 2 == 1)
                    previous, turns = made["id"], turns + 1
            replicas[leaving].signal(signal.SIGTERM)
            process = replicas[leaving].process
            assert process is not None
            assert await asyncio.wait_for(process.wait(), 20) == 0
            replicas[leaving] = await stack.enter_async_context(replica_process(settings, store_url, tmp_path))
        await proxied(replicas[0], CHAT, "the end", previous, stream=False)
        told = json.dumps((await seen_by(simulator))["requests"][-1]["body"])
        assert [told.count(f"You said: turn-{turn}.") for turn in range(turns)] == [1] * turns
        http = await stack.enter_async_context(replicas[0].http())
        assert (await (await http.get(f"responses/{previous}")).json())["id"] == previous


@each_model
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_an_answer_that_the_store_does_not_take_is_late_by_a_moment_and_whole(
    model: str, stream: bool, simulator: str, own_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_replica(config(simulator), own_store) as pollux, pollux.http() as http:
        before = await proxied(pollux, model, "before", None, stream=stream)
        pid = server_pid(own_store)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            during = await proxied(pollux, model, "during", None, stream=stream)
            assert time.monotonic() - began < 30
            assert text_of(during).startswith("You said: during. ")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert caplog.text.count("could not be kept: the store does not answer") == 1
        await wait_until(lambda: ready(http, pollux), what="it is ready again")
        assert (await http.get(f"responses/{before['id']}")).status == 200
        after = await proxied(pollux, model, "after", before["id"], stream=stream)
        assert (await (await http.get(f"responses/{after['id']}")).json())["id"] == after["id"]


async def test_answers_to_many_do_not_wait_for_each_other_while_the_store_is_away(
    simulator: str, own_store: str
) -> None:
    async with running_replica(config(simulator), own_store) as pollux:
        await proxied(pollux, CHAT, "before", None, stream=False)
        pid = server_pid(own_store)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            await asyncio.gather(*(proxied(pollux, CHAT, f"{n}", None, stream=n % 2 == 0) for n in range(100)))
            assert time.monotonic() - began < 30
        finally:
            os.kill(pid, signal.SIGCONT)
