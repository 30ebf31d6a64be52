"""Providers that speak Chat Completions or Messages serve in every mode, as if they spoke the Responses API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.dialects import Said, load, said_in_chat, said_in_messages, said_in_response
from tests.support.replica import ALICE, BOB, MASTER_KEY, Replica, running_replica
from tests.support.sse import read_stream
from tests.support.upstreams import running_dialect, running_simulator, seen_by
from tests.support.waiting import wait_until

Json = dict[str, Any]

CLAUDE, MISTRAL, LLAMA, GPT = "claude-sonnet-4-5-20250929", "mistral-large", "llama-3", "gpt-5.2"
SCHEMA: Any = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
FUNCTION: Any = {"type": "function", "name": "lookup", "parameters": SCHEMA, "strict": True}
RECORDINGS = [
    *(("chat", name) for name in ("openai-text", "deepseek-reasoning", "mistral-reasoning", "mistral-tool-call")),
    *(("chat", name) for name in ("alibaba-tool-call", "groq-tool-call", "xai-tool-call", "perplexity-citations")),
    *(("chat", name) for name in ("azure-model-router.1", "cerebras-structured-output-tools.1")),
    *(("messages", f"anthropic-{name}") for name in ("text", "clear-thinking.1", "tool-no-args", "refusal", "mcp.1")),
    *(("messages", f"anthropic-{name}") for name in ("web-search-tool.1", "json-output-format.1", "fallback")),
    ("messages", "anthropic-message-delta-input-tokens"),
    ("messages", "duplicate-message-start"),
]
PATHS = {"chat": "/chat/completions", "messages": "/messages"}


def config(upstream: str, *entries: tuple[str, str], **general: Any) -> Json:
    """One deployment for each public name and model, all at this upstream."""
    params = {"api_base": upstream, "api_key": "sk-upstream-secret"}
    return {
        "model_list": [{"model_name": name, "litellm_params": {"model": model, **params}} for name, model in entries],
        "litellm_settings": {"responses": {"background_mode": {"polling_via_cache": "all", "ttl": 600}}, **general},
        "general_settings": {"master_key": MASTER_KEY},
        "pollux": {"keys": [{"name": "alice", "key": ALICE}, {"name": "bob", "key": BOB}]},
    }


EVERY = (
    (CLAUDE, f"anthropic/{CLAUDE}"),
    (MISTRAL, f"mistral/{MISTRAL}"),
    (LLAMA, f"groq/{LLAMA}"),
    (GPT, f"openai/{GPT}"),
)


@pytest.fixture
async def simulator() -> AsyncIterator[str]:
    async with running_simulator() as base_url:
        yield base_url


@pytest.fixture
async def pollux(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(config(simulator, *EVERY), store_url) as replica:
        yield replica


@pytest.fixture
async def sdk(pollux: Replica) -> AsyncIterator[openai.AsyncOpenAI]:
    async with pollux.client() as client:
        yield client


async def test_the_documented_example_runs_as_it_stands(simulator: str, store_url: str) -> None:
    documented = {
        "model_list": [
            {
                "model_name": "claude-sonnet-4-5-20250929",
                "litellm_params": {
                    "model": "anthropic/claude-sonnet-4-5-20250929",
                    "api_base": simulator,
                    "api_key": "k",
                },
            }
        ],
        "litellm_settings": {
            "cache": True,
            "responses": {"background_mode": {"polling_via_cache": "all", "ttl": 3600}},
        },
        "pollux": {},
    }
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(documented, store_url))
        http = await stack.enter_async_context(pollux.http(None))
        body = {"model": CLAUDE, "input": "Tell me a story [[words=30]] [[delay_ms=20]]", "background": True}
        answer = await http.post("responses", json=body)
        created = response = await answer.json()
        assert created["status"] == "queued"
        assert created["id"].startswith("litellm_poll_")
        texts = [""]
        while response["status"] in ("queued", "in_progress"):
            headers = {"If-None-Match": answer.headers["ETag"]}
            answer = await http.get(f"responses/{created['id']}?wait=10", headers=headers)
            response = await answer.json()
            texts.append("".join(part["text"] for item in response["output"] for part in item["content"]))
        assert response["status"] == "completed"
        assert texts[-1].startswith("You said: Tell me a story")
        assert len(set(texts)) > 5, "it grew"
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        assert response["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(("folder", "name"), RECORDINGS, ids=[name for _, name in RECORDINGS])
async def test_a_recording_comes_out_the_same_in_every_mode(
    folder: str, name: str, real_recordings: Path, store_url: str
) -> None:
    file = real_recordings / folder / f"{name}.jsonl"
    expected = said_in_chat(load(file)) if folder == "chat" else said_in_messages(load(file))
    model = "groq/m" if folder == "chat" else "anthropic/m"
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_dialect(file, PATHS[folder]))
        pollux = await stack.enter_async_context(running_replica(config(upstream.base_url, ("m", model)), store_url))
        http = await stack.enter_async_context(pollux.http())
        sdk = await stack.enter_async_context(pollux.client())

        # Cached.
        made = await http.post(
            "responses", json={"model": "m", "input": "hi", "background": True}, headers={"Prefer": "wait=20"}
        )
        cached = await made.json()
        assert said_in_response(cached) == expected

        # Cached and streamed, and resumed after any event.
        body = {"model": "m", "input": "hi", "background": True, "stream": True}
        events = await read_stream(await http.post("responses", json=body))
        final = events[-1]["response"]
        assert said_in_response(final) == expected
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        for last in {0, 1, len(events) // 2, len(events) - 2}:
            resumed = await http.get(f"responses/{final['id']}?stream=true&starting_after={last}")
            assert await read_stream(resumed) == events[last + 1 :]

        # Proxied, by the SDK's helper, which accepts nothing out of order.
        async with sdk.responses.stream(model="m", input="hi") as stream:
            kinds = [event.type async for event in stream]
        assert kinds[-1] == f"response.{cached['status']}"
        refused = cached["status"] == "incomplete"
        if not refused:
            assert said_in_response((await stream.get_final_response()).to_dict()) == expected


@pytest.mark.parametrize("model", [CLAUDE, MISTRAL])
async def test_a_proxied_answer_is_a_whole_response_and_is_kept(
    model: str, pollux: Replica, sdk: openai.AsyncOpenAI
) -> None:
    made = await sdk.responses.create(model=model, input="Hello [[words=5]]", metadata={"a": "b"})
    assert made.status == "completed"
    assert made.output_text.startswith("You said: Hello")
    assert made.metadata == {"a": "b"}
    assert made.tools == []
    assert made.usage is not None

    assert (await sdk.responses.retrieve(made.id)).to_dict() == made.to_dict()
    [item] = (await sdk.responses.input_items.list(made.id)).data
    assert item.to_dict()["content"] == [{"type": "input_text", "text": "Hello [[words=5]]"}]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await sdk.responses.cancel(made.id)
    async with pollux.client(BOB) as bob:
        for asked in (bob.responses.retrieve, bob.responses.delete, bob.responses.cancel):
            with pytest.raises(openai.NotFoundError):
                await asked(made.id)
    async with pollux.client(MASTER_KEY) as master:
        assert (await master.responses.retrieve(made.id)).id == made.id
    await sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(made.id)


async def test_a_proxied_stream_is_kept_too_unless_it_is_not_to_be_stored(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.responses.stream(model=MISTRAL, input="Hello [[words=5]]") as stream:
        async for _ in stream:
            pass
    final = await stream.get_final_response()
    assert (await sdk.responses.retrieve(final.id)).output_text == final.output_text
    unstored = await sdk.responses.create(model=MISTRAL, input="Hello", store=False)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(unstored.id)


@pytest.mark.parametrize("background", [True, False], ids=["cached", "proxied"])
async def test_five_chained_turns_keep_their_context_even_over_another_provider(
    background: bool, simulator: str, pollux: Replica, sdk: openai.AsyncOpenAI
) -> None:
    previous = None
    for turn, model in enumerate([CLAUDE, CLAUDE, MISTRAL, CLAUDE, GPT]):
        made = await sdk.responses.create(
            model=model,
            input=f"turn {turn} [[words=4]]",
            background=background,
            previous_response_id=previous,
            extra_headers={"Prefer": "wait=20"},
        )
        assert made.status == "completed"
        assert made.previous_response_id == previous
        previous = made.id
    told = json.dumps((await seen_by(simulator))["requests"][-1]["body"])
    for turn in range(5):
        assert f"turn {turn}" in told
    assert told.count("You said: turn") == 4
    assert "previous_response_id" not in told


async def test_a_chain_that_is_gone_is_a_clear_error(sdk: openai.AsyncOpenAI) -> None:
    first = await sdk.responses.create(model=CLAUDE, input="one")
    second = await sdk.responses.create(model=CLAUDE, input="two", previous_response_id=first.id)
    await sdk.responses.delete(first.id)
    for background in (True, False):
        with pytest.raises(openai.BadRequestError, match="can't be continued") as refused:
            await sdk.responses.create(
                model=CLAUDE, input="three", previous_response_id=second.id, background=background
            )
        assert refused.value.code == "previous_response_not_found"


async def test_a_reference_to_an_item_is_resolved(simulator: str, sdk: openai.AsyncOpenAI) -> None:
    for background in (True, False):
        made = await sdk.responses.create(
            model=MISTRAL, input="first", background=background, extra_headers={"Prefer": "wait=20"}
        )
        reference: Any = {"type": "item_reference", "id": made.output[0].id}
        await sdk.responses.create(model=CLAUDE, input=[reference, {"role": "user", "content": "second"}])
        told = (await seen_by(simulator))["requests"][-1]["body"]["messages"]
        assert "You said: first" in json.dumps(told[0])
    with pytest.raises(openai.BadRequestError, match="item_reference"):
        await sdk.responses.create(model=CLAUDE, input=[{"type": "item_reference", "id": "msg_unknown"}])


@pytest.mark.parametrize("model", [CLAUDE, MISTRAL])
@pytest.mark.parametrize("background", [True, False], ids=["cached", "proxied"])
async def test_a_tool_round_trip(model: str, background: bool, sdk: openai.AsyncOpenAI) -> None:
    options: Any = {"model": model, "background": background, "extra_headers": {"Prefer": "wait=20"}}
    asked: Any = [{"role": "user", "content": "Where? [[tool=lookup]] [[reasoning=1]]"}]
    first = await sdk.responses.create(**options, input=asked, tools=[FUNCTION], reasoning={"effort": "low"})
    [call] = [item for item in first.output if item.type == "function_call"]
    assert isinstance(json.loads(call.arguments), dict)
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Zurich"}
    history = [*asked, *(item.to_dict() for item in first.output), output]
    second = await sdk.responses.create(**options, input=history, tools=[FUNCTION])
    assert "Zurich" in second.output_text
    chained = await sdk.responses.create(
        **options,
        input=[output],
        previous_response_id=first.id,
        tools=[FUNCTION],
    )
    assert "Zurich" in chained.output_text


@pytest.mark.parametrize("model", [CLAUDE, MISTRAL])
async def test_a_structured_output(model: str, sdk: openai.AsyncOpenAI) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}
    for background in (True, False):
        made = await sdk.responses.create(
            model=model, input="Hi", text=form, background=background, extra_headers={"Prefer": "wait=20"}
        )
        assert json.loads(made.output_text).keys() == {"a"}
        assert made.text is not None
        assert made.text.format is not None
        assert made.text.format.type == "json_schema"


async def test_what_a_provider_cant_be_told_is_refused_before_it_is_queued(
    simulator: str, store_url: str, sdk: openai.AsyncOpenAI
) -> None:
    tools: Any = [{"type": "file_search", "vector_store_ids": ["v"]}]
    for background in (True, False):
        with pytest.raises(openai.BadRequestError, match=r"'mistral'.*'file_search'") as refused:
            await sdk.responses.create(model=MISTRAL, input="Hi", tools=tools, background=background)
        assert refused.value.param == "tools[0]"
    assert (await seen_by(simulator))["requests"] == []
    async with AsyncExitStack() as stack:
        dropping = config(simulator, *EVERY, drop_params=True)
        pollux = await stack.enter_async_context(running_replica(dropping, store_url))
        client = await stack.enter_async_context(pollux.client())
        made = await client.responses.create(model=MISTRAL, input="Hi", tools=tools)
        assert made.status == "completed"


async def test_native_background_needs_a_provider_that_has_one(simulator: str, store_url: str) -> None:
    without = config(simulator, *EVERY)
    without["litellm_settings"]["responses"]["background_mode"]["polling_via_cache"] = False
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(without, store_url))
        client = await stack.enter_async_context(pollux.client())
        with pytest.raises(openai.BadRequestError, match="polling_via_cache") as refused:
            await client.responses.create(model=CLAUDE, input="Hi", background=True)
        assert refused.value.param == "background"
        native = await client.responses.create(model=GPT, input="Hi", background=True)
        assert native.status in ("queued", "in_progress", "completed")


@pytest.mark.parametrize("model", [CLAUDE, MISTRAL])
async def test_a_cancel_closes_the_providers_socket(model: str, simulator: str, sdk: openai.AsyncOpenAI) -> None:
    made = await sdk.responses.create(model=model, input="Never stop [[words=5000]] [[delay_ms=20]]", background=True)

    async def is_running() -> bool:
        return bool((await sdk.responses.retrieve(made.id)).output_text)

    await wait_until(is_running, what="there is output")
    cancelled = await sdk.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert cancelled.output_text

    async def is_closed() -> bool:
        return bool((await seen_by(simulator))["open"] == 0)

    await wait_until(is_closed, timeout_s=2, what="the provider's socket is closed")


@pytest.mark.parametrize(
    ("directives", "status", "code"),
    [
        ("[[words=20]] [[cut_after=9]]", "failed", "server_error"),
        ("[[words=20]] [[end_after=9]]", "failed", "server_error"),
        ("[[words=9]] [[incomplete=1]]", "incomplete", None),
        ("[[status=400]]", "failed", "invalid_prompt"),
    ],
)
@pytest.mark.parametrize("model", [CLAUDE, MISTRAL])
async def test_each_bad_end_is_told_as_one(
    model: str, directives: str, status: str, code: str | None, sdk: openai.AsyncOpenAI
) -> None:
    made = await sdk.responses.create(
        model=model, input=f"Hi {directives}", background=True, extra_headers={"Prefer": "wait=20"}
    )
    assert made.status == status
    assert (made.error.code if made.error else None) == code


@pytest.mark.parametrize("model", [CLAUDE, MISTRAL])
@pytest.mark.parametrize("failure", ["status=503", "status=529", "error_event_after=0"])
async def test_a_passing_failure_before_output_is_tried_again(
    model: str, failure: str, simulator: str, sdk: openai.AsyncOpenAI
) -> None:
    text = f"Hi [[{failure}]] [[fail_times=1]] [[fail_key={model}-{failure}]]"
    made = await sdk.responses.create(model=model, input=text, background=True, extra_headers={"Prefer": "wait=20"})
    assert made.status == "completed"
    assert len((await seen_by(simulator))["requests"]) == 2


async def test_defaults_of_a_deployment_fill_what_a_client_leaves_out(simulator: str, store_url: str) -> None:
    entries = config(simulator, *EVERY)
    for entry in entries["model_list"]:
        entry["litellm_params"] |= {"temperature": 0.25, "max_tokens": 77, "extra_body": {"top_k": 3}}
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(entries, store_url))
        client = await stack.enter_async_context(pollux.client())
        for model, limit in ((CLAUDE, "max_tokens"), (MISTRAL, "max_tokens"), (GPT, "max_output_tokens")):
            await client.responses.create(model=model, input="Hi", temperature=0.5)
            body = (await seen_by(simulator))["requests"][-1]["body"]
            assert (body["temperature"], body[limit], body["top_k"]) == (0.5, 77, 3)


async def test_twenty_at_once_over_three_dialects(sdk: openai.AsyncOpenAI) -> None:
    async def one(number: int) -> Said:
        model = (CLAUDE, LLAMA, GPT)[number % 3]
        made = await sdk.responses.create(
            model=model, input=f"number {number} [[words=30]]", background=True, extra_headers={"Prefer": "wait=20"}
        )
        assert f"number {number} " in made.output_text
        return said_in_response(made.to_dict())

    assert all(said.usage[1] for said in await asyncio.gather(*map(one, range(20))))
