"""Providers that fail: what becomes of the response, and what the client learns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from tests.support.replica import CACHED, Replica, create, make_config, running_replica
from tests.support.sse import read_stream
from tests.support.upstreams import running_script, runs_of


async def outcome(replica: Replica, text: str, **body: Any) -> dict[str, Any]:
    async with replica.http() as http:
        answer = await http.post(
            "responses",
            json={"model": CACHED, "input": text, "background": True, **body},
            headers={"Prefer": "wait=30"},
        )
        made: dict[str, Any] = await answer.json()
        return made


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


@pytest.mark.parametrize("fault", ["cut_after", "end_after"])
async def test_an_upstream_that_stops_after_output_fails_the_response_and_keeps_what_arrived(
    pollux: Replica, fault: str
) -> None:
    response = await outcome(pollux, f"half a story [[{fault}=9]]")
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert "half" in text_of(response)
    assert response["completed_at"] is None
    response_id = await create(pollux, f"half a story [[{fault}=9]]", stream=True)
    async with pollux.http() as http:
        events = await read_stream(await http.get(f"responses/{response_id}?stream=true"))
    assert events[-1]["type"] == "response.failed"
    assert "half" in text_of(events[-1]["response"])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_an_upstream_that_ends_before_any_output_without_a_terminal_event_fails_it(pollux: Replica) -> None:
    response = await outcome(pollux, "[[end_after=2]]")
    assert response["status"] == "failed"
    assert response["output"] == []


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_a_passing_refusal_is_tried_again(pollux: Replica, simulator: str, status: int) -> None:
    response = await outcome(pollux, f"again [[status={status}]] [[fail_times=1]]")
    assert response["status"] == "completed"
    assert await runs_of(simulator) == 2


async def test_a_connection_cut_before_the_first_output_is_tried_again(pollux: Replica, simulator: str) -> None:
    response = await outcome(pollux, "again [[cut_after=2]] [[fail_times=1]]")
    assert response["status"] == "completed"
    assert await runs_of(simulator) == 2


async def test_a_refusal_that_stays_ends_in_failed_after_the_configured_retries(simulator: str, store_url: str) -> None:
    config = make_config(simulator)
    config["litellm_settings"]["num_retries"] = 1
    async with running_replica(config, store_url) as pollux:
        response = await outcome(pollux, "[[status=429]]")
    assert response["status"] == "failed"
    assert response["error"]["code"] == "rate_limit_exceeded"
    assert await runs_of(simulator) == 2


async def test_retry_after_is_honoured(pollux: Replica) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await outcome(pollux, "[[status=429]] [[fail_times=1]] [[retry_after=2]]")
    assert response["status"] == "completed"
    assert loop.time() - began > 1.9


async def test_a_refusal_for_good_is_not_tried_again_and_has_the_providers_code(
    pollux: Replica, simulator: str
) -> None:
    response = await outcome(pollux, "[[status=400]] [[error_code=context_length_exceeded]]")
    assert response["status"] == "failed"
    assert response["error"]["code"] == "context_length_exceeded"
    assert response["error"]["message"]
    assert await runs_of(simulator) == 1


async def test_an_error_event_becomes_the_one_response_failed(pollux: Replica) -> None:
    for shape in ("[[error_event_after=5]]", "[[error_event_after=5]] [[error_only=1]]"):
        response_id = await create(pollux, shape, stream=True)
        async with pollux.http() as http:
            events = await read_stream(await http.get(f"responses/{response_id}?stream=true"))
        assert not any("error" in event for event in events), "it would make the SDKs raise"
        assert [event["type"] for event in events].count("response.failed") == 1
        assert events[-1]["response"]["error"]["message"]


async def test_silence_ends_in_failed_with_timeout(simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator, stream_timeout_s=0.5), store_url) as pollux:
        response = await outcome(pollux, "then nothing [[silence_after=8]]")
    assert response["status"] == "failed"
    assert response["error"]["code"] == "timeout"
    assert text_of(response)


async def test_a_run_that_takes_too_long_ends_in_failed_with_timeout(simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator, max_run_s=1), store_url) as pollux:
        response = await outcome(pollux, "on and on [[words=1000]] [[delay_ms=50]]")
    assert response["status"] == "failed"
    assert response["error"]["code"] == "timeout"
    assert text_of(response)


async def test_another_deployment_of_the_model_takes_over(simulator: str, store_url: str) -> None:
    async def broken(_request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "down"}}, status=500)

    async with running_script(broken) as dead:
        config = make_config(simulator)
        params = {"model": f"openai/{CACHED}", "api_base": dead.base_url, "api_key": "sk-other"}
        config["model_list"].append({"model_name": CACHED, "litellm_params": params})
        async with running_replica(config, store_url) as pollux:
            for _ in range(6):
                assert (await outcome(pollux, "hi"))["status"] == "completed"
            async with pollux.http() as http:
                answer = await http.post("responses", json={"model": CACHED, "input": "hi"})
                assert answer.status == 200


def chunk(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


@pytest.mark.parametrize(
    "frames",
    [
        [chunk("{not json")],
        [chunk("[1, 2]")],
        [chunk('{"no": "type"}')],
        [chunk('{"error": {"message": "quota", "code": "insufficient_quota"}}')],
        [chunk("[DONE]")],
        [b"data: " + b"x" * 1000],
        [],
    ],
    ids=["not JSON", "an array", "without a type", "a bare error", "only DONE", "half a frame", "nothing"],
)
async def test_whatever_an_upstream_sends_in_place_of_events_the_response_fails(
    frames: list[bytes], store_url: str
) -> None:
    async def misbehave(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for frame in frames:
            await answer.write(frame)
        return answer

    async with (
        running_script(misbehave) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        response = await outcome(pollux, "hi")
    assert response["status"] == "failed"
    assert response["error"]["message"]


async def test_an_upstream_that_ignores_stream_and_answers_json_is_understood(store_url: str) -> None:
    async def plain(_request: web.Request) -> web.Response:
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": []}
        return web.json_response({"id": "r1", "object": "response", "status": "completed", "output": [message]})

    async with running_script(plain) as upstream, running_replica(make_config(upstream.base_url), store_url) as pollux:
        response = await outcome(pollux, "hi")
        assert response["status"] == "completed"
        assert response["output"][0]["id"] == "msg_1"
        async with pollux.client() as sdk:
            assert (await sdk.responses.retrieve(response["id"])).tools == []


async def test_a_weak_upstream_whose_terminal_event_has_no_output_gets_it_from_its_events(store_url: str) -> None:
    async def weak(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for frame in (
            '{"type":"response.created","response":{"id":"r1"}}',
            '{"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"m","content":[]}}',
            '{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"he"}',
            '{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"llo"}',
            '{"type":"response.completed","response":{"id":"r1"}}',
        ):
            await answer.write(chunk(frame))
        return answer

    async with running_script(weak) as upstream, running_replica(make_config(upstream.base_url), store_url) as pollux:
        response = await outcome(pollux, "hi")
    assert response["status"] == "completed"
    assert text_of(response) == "hello"


@pytest.mark.parametrize(
    "body", [b"no JSON", b"[" * 100_000, b'{"status":"completed","output":' + b"[" * 600 + b"]" * 600 + b"}"]
)
async def test_a_json_answer_that_is_of_no_use_is_asked_for_again_and_fails_then(body: bytes, store_url: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with running_script(answer) as upstream, running_replica(make_config(upstream.base_url), store_url) as pollux:
        response = await outcome(pollux, "hi")
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
        assert len(upstream.requests) == 3


@pytest.mark.undescribed("its output has items without a type")
async def test_what_the_provider_said_of_the_response_stays_when_it_fails_later(store_url: str) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(
            chunk('{"type":"response.created","response":{"id":"resp_raw_0123","model":"gpt-5.2-dated"}}')
        )
        await answer.write(chunk('{"type":"response.output_item.added","output_index":0,"item":{"id":"m"}}'))
        await answer.write(chunk('{"type":"error","error":{"code":"x","message":"resp_raw_0123 is overloaded"}}'))
        return answer

    async with running_script(cut) as upstream, running_replica(make_config(upstream.base_url), store_url) as pollux:
        response = await outcome(pollux, "hi")
    assert response["status"] == "failed"
    assert response["model"] == "gpt-5.2-dated"
    assert response["error"]["message"] == f"{response['id']} is overloaded"


async def test_a_job_that_this_replica_does_not_know_how_to_run_waits_for_one_that_does(
    simulator: str, store_url: str
) -> None:
    new = make_config(simulator)
    old = make_config(simulator)
    old["model_list"] = old["model_list"][1:]
    async with running_replica(old, store_url):
        idle = {**new, "pollux": {**new["pollux"], "worker_concurrency": 0}}
        async with running_replica(idle, store_url) as pollux:
            response_id = await create(pollux, "new here")
            async with running_replica(new, store_url), pollux.http() as http:
                response = await (await http.get(f"responses/{response_id}?wait=20")).json()
                assert response["status"] == "completed"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_proxied_request_that_timed_out_is_not_repeated(streamed: bool, store_url: str) -> None:
    """The provider may be at work on it, and would be paid twice."""

    async def slow(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with running_script(slow) as upstream:
        config = make_config(upstream.base_url, first_byte_timeout_s=0.3)
        config["litellm_settings"] |= {"num_retries": 3, "request_timeout": 0.3}
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            answer = await http.post("responses", json={"model": CACHED, "input": "x", "stream": streamed})
            assert answer.status == 504
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [408, 409])
async def test_a_proxied_request_that_may_be_under_way_is_not_repeated(status: int, store_url: str) -> None:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "later"}}, status=status)

    async with (
        running_script(refuse) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        assert (await http.post("responses", json={"model": CACHED, "input": "x"})).status == status
        assert len(upstream.requests) == 1
