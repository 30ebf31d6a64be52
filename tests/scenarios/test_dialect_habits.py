"""Habits of providers and clients that no rule foresees: odd answers, and chains over references and empty memories."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.scenarios.test_dialects import config
from tests.support.dialects import chunk
from tests.support.replica import running_replica
from tests.support.upstreams import Upstream, running_script

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/html", b"<title>Sign in</title>"), ("application/json", b""), ("application/json", b'{"choices":5}')],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_no_completion_is_the_providers_failure(
    content_type: str, body: bytes, stream: bool, store_url: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type)

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_script(answer))
        pollux = await stack.enter_async_context(running_replica(config(upstream.base_url, ("m", "groq/m")), store_url))
        http = await stack.enter_async_context(pollux.http())
        refused = await http.post("responses", json={"model": "m", "input": "hi", "stream": stream})
        error = (await refused.json())["error"]
        assert (refused.status, error["code"]) == (502, "upstream_unavailable")
        assert "neither a stream nor a finished response" in error["message"]


OUTPUT: list[Json] = [
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "R"}]},
]


async def of_two_dialects(request: web.Request) -> web.Response:
    """A provider of Responses, which finds no previous one, and one of Chat Completions. Both answer in one piece."""
    body = await request.json()
    if request.path.endswith("/chat/completions"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "C"}, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "choices": [choice]})
    if body.get("previous_response_id"):
        error = {"message": "not found", "code": "previous_response_not_found"}
        return web.json_response({"error": error}, status=400)
    response = {"id": "resp_1", "object": "response", "status": "completed", "output": OUTPUT}
    return web.json_response(response)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_script(of_two_dialects) as running:
        yield running


@pytest.fixture
async def sdk(upstream: Upstream, store_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    settings = config(upstream.base_url, ("chat", "groq/m"), ("responses", "openai/m"), ("forgetful", "openai/z"))
    settings["model_list"][-1]["litellm_params"]["store"] = False
    async with running_replica(settings, store_url) as pollux, pollux.client() as client:
        yield client


async def made(sdk: openai.AsyncOpenAI, model: str, given: Any, previous: str | None = None, **options: Any) -> Any:
    """The response to a background request, once it has ended."""
    response = await sdk.responses.create(
        model=model,
        input=given,
        previous_response_id=previous,
        background=True,
        extra_headers={"Prefer": "wait=20"},
        **options,
    )
    assert response.status == "completed", response.error
    return response


async def test_a_chain_goes_on_over_a_reference_to_an_item(sdk: openai.AsyncOpenAI, upstream: Upstream) -> None:
    first = await sdk.responses.create(model="chat", input="one")
    given: Any = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "two"}]
    second = await sdk.responses.create(model="chat", input=given)
    await made(sdk, "chat", "three", second.id)
    said = [message["content"] for message in upstream.requests[-1].json["messages"]]
    assert said == ["C", "two", "C", "three"]


async def test_a_chain_finds_a_response_by_its_id_without_padding(sdk: openai.AsyncOpenAI, upstream: Upstream) -> None:
    previous, text = None, 0
    while previous is None or not previous.id.endswith("="):
        text += 1
        previous = await sdk.responses.create(model="chat", input="x" * text)
    await sdk.responses.create(model="chat", input="two", previous_response_id=previous.id.rstrip("="))
    assert [message["content"] for message in upstream.requests[-1].json["messages"]][1:] == ["C", "two"]


@pytest.mark.parametrize(("model", "options"), [("forgetful", {}), ("responses", {"store": False})])
async def test_a_provider_that_was_told_to_keep_nothing_is_told_the_turns_before(
    model: str, options: Json, sdk: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    first = await made(sdk, model, "one", **options)
    await made(sdk, model, "two", first.id, **options)
    sent = upstream.requests[-1].json
    assert sent.get("previous_response_id") is None
    # It would look up reasoning that does not say itself what it holds, and has not kept it.
    assert [item.get("type", item.get("role")) for item in sent["input"]] == ["user", "message", "user"]


async def test_a_chain_goes_on_behind_a_response_that_was_cut_in_a_call(store_url: str) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    frames = [
        b"data: %b\n\n" % json.dumps(chunk(delta)).encode() for delta in ({"content": "I"}, {"tool_calls": [call]})
    ]

    async def answer(request: web.Request) -> web.Response:
        if len((await request.json())["messages"]) > 1:
            return await of_two_dialects(request)
        return web.Response(body=b"".join(frames), content_type="text/event-stream")

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_script(answer))
        pollux = await stack.enter_async_context(running_replica(config(upstream.base_url, ("m", "groq/m")), store_url))
        sdk = await stack.enter_async_context(pollux.client())
        wait = {"Prefer": "wait=20"}
        cut = await sdk.responses.create(model="m", input="one", background=True, extra_headers=wait)
        assert (cut.status, [item.type for item in cut.output]) == ("failed", ["message", "function_call"])
        await made(sdk, "m", "two", cut.id)
        told = upstream.requests[-1].json["messages"]
        assert [message["content"] for message in told] == ["one", "I", "two"]
        assert "tool_calls" not in told[1]
