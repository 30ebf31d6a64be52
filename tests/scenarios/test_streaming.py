"""Streams: from the create call, resumed anywhere, on any replica; and how they end."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import aiohttp
import pytest
import redis
from aiohttp import web
from openai import AsyncOpenAI

from server.api import outflow
from storage.keys import Shard
from tests.support.replica import CACHED, NATIVE, Replica, create, make_config, running_replica
from tests.support.sse import events_of, read_stream
from tests.support.upstreams import running_script
from tests.support.waiting import wait_until

OPENING = ["response.created", "response.queued", "response.in_progress"]


async def test_a_stream_opens_as_the_real_api_does_and_ends_with_one_terminal_event(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model=CACHED, input="hi", background=True, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events[:3]] == OPENING
    assert [event.response.status for event in events[:3]] == ["queued", "queued", "in_progress"]  # type: ignore[union-attr]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert len({event.response.id for event in [*events[:3], events[-1]]}) == 1  # type: ignore[union-attr]
    retrieved = await client.responses.retrieve(events[-1].response.id)
    assert retrieved.to_dict() == events[-1].response.to_dict()


@pytest.mark.parametrize("shape", ["", "[[tool=look_up]]", "[[reasoning=1]]", "[[refusal=1]]", "[[custom_tool=run]]"])
async def test_the_strict_helper_of_the_sdk_follows_a_response_across_replicas(
    shape: str, simulator: str, store_url: str
) -> None:
    async with AsyncExitStack() as stack:
        config = make_config(simulator)
        one, two = [await stack.enter_async_context(running_replica(config, store_url)) for _ in range(2)]
        response_id = await create(one, f"hi [[delay_ms=10]] {shape}", stream=True)
        sdk = await stack.enter_async_context(two.client())
        async with sdk.responses.stream(response_id=response_id, starting_after=4) as stream:
            numbers = [event.sequence_number async for event in stream]
            final = await stream.get_final_response()
        assert final.status == "completed"
        assert final.id == response_id
        assert numbers == list(range(5, 5 + len(numbers)))


async def test_a_stream_that_the_client_broke_off_resumes_with_the_very_next_event(
    simulator: str, store_url: str
) -> None:
    async with AsyncExitStack() as stack:
        config = make_config(simulator)
        one, two = [await stack.enter_async_context(running_replica(config, store_url)) for _ in range(2)]
        here, there = [await stack.enter_async_context(replica.http()) for replica in (one, two)]
        body = {"model": CACHED, "input": "long [[words=40]] [[delay_ms=10]]", "background": True, "stream": True}
        answer = await here.post("responses", json=body)
        first = []
        async for event in events_of(answer):
            first.append(event)
            if len(first) == 12:
                break
        answer.close()
        response_id = first[0]["response"]["id"]
        rest = await read_stream(await there.get(f"responses/{response_id}?stream=true&starting_after=11"))
        assert [event["sequence_number"] for event in [*first, *rest]] == list(range(12 + len(rest)))
        text = "".join(event["delta"] for event in [*first, *rest] if event["type"] == "response.output_text.delta")
        assert text == rest[-1]["response"]["output"][0]["content"][0]["text"]


async def test_beyond_the_last_event_a_finished_stream_is_empty_and_a_running_one_waits(pollux: Replica) -> None:
    done = await create(pollux, "hi", stream=True)
    running = await create(pollux, "hi [[words=30]] [[delay_ms=20]]", stream=True)
    async with pollux.http() as http:
        whole = await read_stream(await http.get(f"responses/{done}?stream=true"))
        assert await read_stream(await http.get(f"responses/{done}?stream=true&starting_after=99")) == []
        assert len(whole) > 5
        later = await read_stream(await http.get(f"responses/{running}?stream=true&starting_after=20"))
        assert later[0]["sequence_number"] == 21
        assert later[-1]["type"] == "response.completed"


async def test_obfuscation_is_replayed_or_left_out_as_asked(pollux: Replica) -> None:
    response_id = await create(pollux, "hi", stream=True)
    async with pollux.http() as http:
        kept = await read_stream(await http.get(f"responses/{response_id}?stream=true"))
        without = await read_stream(await http.get(f"responses/{response_id}?stream=true&include_obfuscation=false"))
    assert any("obfuscation" in event for event in kept)
    assert without == [{k: v for k, v in event.items() if k != "obfuscation"} for event in kept]


async def test_done_is_sent_only_where_the_config_says_so(simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator, sse_done=True), store_url) as pollux, pollux.http() as http:
        body = {"model": CACHED, "input": "hi", "background": True, "stream": True}
        text = await (await http.post("responses", json=body)).text()
        assert text.endswith("\n\ndata: [DONE]\n\n")


async def test_a_silent_stream_is_kept_alive_by_comments(pollux: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.stream.HEARTBEAT_S", 0.3)
    monkeypatch.setattr("server.api.sse.HEARTBEAT_S", 0.6)
    async with pollux.http() as http:
        body = {"model": CACHED, "input": "[[first_delay_ms=2000]]", "background": True, "stream": True}
        text = await (await http.post("responses", json=body)).text()
    assert text.count(": keep-alive\n\n") >= 2
    assert "response.completed" in text


async def test_a_relayed_stream_is_kept_alive_though_the_provider_sends_only_comments(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.forward.HEARTBEAT_S", 5)
    monkeypatch.setattr("server.api.forward.OPENING_PATIENCE_S", 0.01)
    monkeypatch.setattr("server.api.sse.HEARTBEAT_S", 0.6)

    async def commenting(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for _ in range(10):
            await answer.write(b": ping\n\n")
            await asyncio.sleep(0.1)
        await answer.write(b'data: {"type":"response.completed","response":{"id":"r"}}\n\n')
        return answer

    async with (
        running_script(commenting) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        text = await (await http.post("responses", json={"model": CACHED, "input": "x", "stream": True})).text()
    assert text.count(": keep-alive\n\n") >= 3


async def test_a_client_that_hangs_up_is_no_event_to_the_job(pollux: Replica) -> None:
    async with pollux.http() as http:
        body = {"model": CACHED, "input": "on [[words=20]] [[delay_ms=20]]", "background": True, "stream": True}
        answer = await http.post("responses", json=body)
        response_id = json.loads((await answer.content.readuntil(b"\n\n")).split(b"data: ")[1])["response"]["id"]
        answer.close()
        final = await (await http.get(f"responses/{response_id}?wait=20")).json()
    assert final["status"] == "completed"


async def test_a_reader_that_takes_nothing_is_cut_off_and_nobody_else_notices(
    pollux: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off: set[outflow.Outflow] = set()
    abort = outflow.Outflow.abort

    def noted(self: outflow.Outflow) -> None:
        cut_off.add(self)
        abort(self)

    monkeypatch.setattr(outflow.Outflow, "abort", noted)
    response_id = await create(pollux, "[[words=40000]]", stream=True)
    async with pollux.http() as http:
        url = f"responses/{response_id}"
        assert (await (await http.get(f"{url}?wait=30")).json())["status"] == "completed"
        with monkeypatch.context() as impatient:
            impatient.setattr(outflow, "WRITE_TIMEOUT_S", 1.0)
            slow = await http.get(f"{url}?stream=true")
            other = await create(pollux, "[[words=40]] [[delay_ms=20]]", stream=True)
            assert len(await read_stream(await http.get(f"responses/{other}?stream=true"))) > 40
            await wait_until(lambda: cut_off, what="the slow one is cut off")
        # At once, this is more than the connection holds: its reader is patiently waited for.
        whole = await read_stream(await http.get(f"{url}?stream=true"))
        assert whole[-1]["type"] == "response.completed"
        assert len(cut_off) == 1
        with pytest.raises(aiohttp.ClientError):
            # What it finds is a connection that was dropped, not a stream that ended.
            await slow.read()


async def test_a_response_deleted_under_its_readers_aborts_their_streams(pollux: Replica) -> None:
    async with pollux.http() as http:
        body = {"model": CACHED, "input": "[[first_delay_ms=30000]]", "background": True, "stream": True}
        answer = await http.post("responses", json=body)
        events = events_of(answer)
        response_id = (await anext(events))["response"]["id"]
        assert (await http.delete(f"responses/{response_id}")).status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            async for _ in events:
                pass


async def test_a_native_stream_that_the_provider_cuts_is_aborted(pollux: Replica) -> None:
    async with pollux.http() as http:
        for background, model in ((True, NATIVE), (False, CACHED)):
            body = {"model": model, "input": "[[cut_after=6]]", "background": background, "stream": True}
            with pytest.raises(aiohttp.ClientPayloadError):
                await read_stream(await http.post("responses", json=body))
            body["input"] = "[[end_after=6]]"
            with pytest.raises(aiohttp.ClientPayloadError):
                await read_stream(await http.post("responses", json=body))


async def test_when_a_replica_closes_its_unfinished_streams_are_aborted(simulator: str, store_url: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with running_replica(make_config(simulator), store_url) as pollux:
            answer = await http.post(
                f"{pollux.url}/v1/responses",
                json={"model": CACHED, "input": "[[first_delay_ms=30000]]", "background": True, "stream": True},
                headers={"Authorization": "Bearer sk-test-alice-1111"},
            )
            events = events_of(answer)
            await anext(events)
        with pytest.raises(aiohttp.ClientPayloadError):
            async for _ in events:
                pass


async def test_two_hundred_readers_of_one_response_all_get_every_event(pollux: Replica) -> None:
    response_id = await create(pollux, "crowd [[words=30]] [[delay_ms=10]]", stream=True)
    async with pollux.http() as http:
        streams = await asyncio.gather(*(_whole(http, f"responses/{response_id}?stream=true") for _ in range(200)))
    assert all(stream == streams[0] for stream in streams)
    assert streams[0][-1]["type"] == "response.completed"


async def _whole(http: aiohttp.ClientSession, url: str) -> list[dict[str, object]]:
    return await read_stream(await http.get(url))


async def test_waits_of_a_stream_request_do_nothing(pollux: Replica) -> None:
    response_id = await create(pollux, "hi", stream=True)
    async with pollux.http() as http:
        answer = await http.get(f"responses/{response_id}?stream=true&wait=20", headers={"Prefer": "wait=20"})
        assert (await read_stream(answer))[-1]["type"] == "response.completed"
        assert "Preference-Applied" not in answer.headers


async def test_a_stream_whose_end_a_failover_has_lost_is_aborted_and_not_ended_cleanly(
    pollux: Replica, admin: redis.Redis
) -> None:
    """The client has events that the new primary never got, and there the response ended otherwise."""
    async with pollux.http() as http:
        body = {"model": CACHED, "input": "x [[words=400]] [[delay_ms=20]]", "background": True, "stream": True}
        events = events_of(await http.post("responses", json=body))
        seen = [await anext(events) for _ in range(12)]
        response_id = seen[0]["response"]["id"]
        shard = Shard(0)
        # As a replica that lagged behind would have it: shorter, and cancelled since.
        admin.hset(shard.record(response_id), mapping={"status": "cancelled", "last": 5, "token": ""})
        admin.zrem(shard.leases, response_id)
        admin.publish(shard.over(response_id), "1-5")
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(10):
                seen += [event async for event in events]
        assert not seen[-1]["type"].endswith((".failed", ".completed"))
        admin.delete(shard.record(response_id), shard.log(response_id))
