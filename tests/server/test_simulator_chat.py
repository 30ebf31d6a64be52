"""The simulator speaks Chat Completions as OpenAI does, and is steered as in its Responses."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from openai import AsyncOpenAI

from tests.support.sdk import new_sdk
from tests.support.upstreams import running_simulator, seen_by
from tests.support.waiting import wait_until

Json = dict[str, Any]

PATHS = [
    "/chat/completions",
    "/v1/chat/completions",
    "/openai/v1/chat/completions",
    "/api/v1/chat/completions",
    "/v1beta/openai/chat/completions",
    "/compatibility/v1/chat/completions",
    "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    async with running_simulator() as url:
        yield url


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with new_sdk(base_url, "sk-test") as client:
        yield client


class Api:
    """Raw calls, with nothing between the test and the bytes."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._url = f"{base_url}/chat/completions"

    def post(self, said: Any, /, **fields: Any) -> Any:
        messages = said if isinstance(said, list) else [{"role": "user", "content": said}]
        return self._session.post(self._url, json={"model": "gpt-4o", "messages": messages, **fields})

    async def create(self, said: Any, /, **fields: Any) -> Json:
        async with self.post(said, **fields) as answer:
            assert answer.status == 200, await answer.text()
            body: Json = orjson.loads(await answer.read())
            return body

    async def stream(self, said: Any, /, **fields: Any) -> list[Any]:
        async with self.post(said, stream=True, **fields) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            return parse_frames(await answer.read())


@pytest.fixture
async def api(base_url: str) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(session, base_url)


def parse_frames(stream: bytes) -> list[Any]:
    """The chunks of a stream that has nothing but whole frames in it; `[DONE]` as it is."""
    frames = stream.decode().split("\n\n")
    assert frames.pop() == ""
    datas = [frame.removeprefix("data: ") for frame in frames]
    return [data if data == "[DONE]" else orjson.loads(data) for data in datas]


def deltas(chunks: list[Any], field: str) -> list[Any]:
    found = [chunk["choices"][0]["delta"].get(field) for chunk in chunks if chunk != "[DONE]" and chunk.get("choices")]
    return [delta for delta in found if delta]


def finish_reasons(chunks: list[Any]) -> list[str]:
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk != "[DONE]" and chunk.get("choices")]
    return [reason for reason in reasons if reason]


async def test_the_chunks_have_the_order_and_the_fields_of_openai(api: Api) -> None:
    *chunks, done = await api.stream("Good morning")
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(deltas(chunks, "content")) == "You said: Good morning. This is a simulated answer of gpt-4o."
    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)
    assert all("obfuscation" in chunk for chunk in chunks)


async def test_usage_is_told_only_to_who_asks_for_it(api: Api) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    *chunks, counted, _ = await api.stream("hi [[reasoning=1]]", stream_options=options)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert counted["choices"] == []
    assert counted["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert counted["usage"]["total_tokens"] == sum(counted["usage"][f"{n}_tokens"] for n in ("prompt", "completion"))
    assert counted["usage"] == (await api.create("hi [[reasoning=1]]"))["usage"]
    assert not any("obfuscation" in chunk for chunk in chunks)


async def test_the_chunks_look_like_recorded_ones(api: Api, real_recordings: Path) -> None:
    recorded = [
        orjson.loads(line) for line in (real_recordings / "chat" / "openai-text.jsonl").read_bytes().splitlines()
    ]
    *chunks, done = await api.stream("hi", stream_options={"include_usage": True})
    assert done == "[DONE]"
    for ours, theirs in (
        (chunks[0], recorded[0]),
        (chunks[1], recorded[1]),
        *zip(chunks[-2:], recorded[-2:], strict=True),
    ):
        assert shape(ours) == shape(theirs)


def shape(value: Any) -> Any:
    """The fields, and the kinds of their values."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value).__name__


async def test_a_completion_says_the_same_as_its_stream(api: Api) -> None:
    completion = await api.create("hi [[words=30]] [[reasoning=1]] [[annotations=1]]")
    chunks = await api.stream("hi [[words=30]] [[reasoning=1]] [[annotations=1]]")
    (choice,) = completion["choices"]
    message = choice["message"]
    assert (completion["object"], choice["finish_reason"], message["role"]) == ("chat.completion", "stop", "assistant")
    assert message["content"] == "".join(deltas(chunks, "content"))
    assert len(message["content"].split()) == 30
    assert message["reasoning_content"] == "".join(deltas(chunks, "reasoning_content"))
    assert [message["annotations"]] == deltas(chunks, "annotations")


async def test_the_last_turn_is_what_was_said(api: Api) -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "long ago"},
        {"role": "assistant", "content": "[[unknown=1]]"},
        {"role": "user", "content": [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}]},
    ]
    content = (await api.create(conversation))["choices"][0]["message"]["content"]
    assert content.startswith("You said: first\nsecond. This is")


async def test_a_tool_is_called_and_its_result_is_what_was_said(api: Api) -> None:
    chunks = await api.stream("hi [[tool=weather,look]]")
    calls: dict[int, Json] = {}
    for (piece,) in deltas(chunks, "tool_calls"):
        call = calls.setdefault(piece["index"], {**piece, "said": ""})
        call["said"] += piece["function"]["arguments"]
    assert [(call["function"]["name"], orjson.loads(call["said"])) for call in calls.values()] == [
        ("weather", {"input": "hi [[tool=weather,look]]"}),
        ("look", {"input": "hi [[tool=weather,look]]"}),
    ]
    assert finish_reasons(chunks) == ["tool_calls"]
    said = {"role": "user", "content": "hi [[tool=weather]]"}
    message = (await api.create([said], tools=[WEATHER]))["choices"][0]["message"]
    assert message["content"] is None
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "21 °C"}
    after = await api.create([said, message, result])
    assert after["choices"][0]["message"]["content"].startswith("You said: 21 °C. ")


async def test_a_custom_tool_is_called(api: Api) -> None:
    (call,) = (await api.create("hi [[custom_tool=sql]]"))["choices"][0]["message"]["tool_calls"]
    assert (call["type"], call["custom"]) == ("custom", {"name": "sql", "input": "hi [[custom_tool=sql]]"})


@pytest.mark.parametrize(
    ("steering", "reason"),
    [({"incomplete": "1"}, "length"), ({"content_filter": "1"}, "content_filter"), ({"refusal": "1"}, "stop")],
)
async def test_other_ends_than_a_whole_answer(api: Api, steering: Json, reason: str) -> None:
    steering["words"] = "20"
    chunks = await api.stream("hi", metadata=steering)
    assert finish_reasons(chunks) == [reason]
    message = (await api.create("hi", metadata=steering))["choices"][0]["message"]
    field = "refusal" if "refusal" in steering else "content"
    assert message[field] == "".join(deltas(chunks, field))
    assert len(message[field].split()) == (5 if field == "refusal" else 10)


async def test_the_pace_is_kept(api: Api) -> None:
    loop = asyncio.get_running_loop()
    for streamed in (True, False):
        started = loop.time()
        async with api.post("hi [[words=6]] [[delay_ms=20]] [[first_delay_ms=100]]", stream=streamed) as answer:
            await answer.read()
        assert 0.2 <= loop.time() - started < 5


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
async def test_a_status_refuses_the_request(api: Api, status: int) -> None:
    async with api.post(f"hi [[status={status}]] [[error_code=odd]] [[retry_after=2]]", stream=True) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (status, "2")
        error = orjson.loads(await answer.read())["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "odd"


async def test_an_error_comes_in_the_stream(api: Api) -> None:
    *chunks, error, done = await api.stream("hi [[error_event_after=3]] [[error_code=odd]]")
    assert (len(chunks), error["error"]["code"], done) == (3, "odd", "[DONE]")
    assert error.keys() == {"error"}
    (error,) = await api.stream("hi [[error_event_after=0]] [[error_only=1]]")
    assert error["error"]["code"] is None
    assert "error" in await api.create("hi [[error_event_after=3]]")


async def test_a_failed_answer_breaks_off_unfinished(api: Api) -> None:
    *_, failed, done = await api.stream("hi [[fail=1]]")
    assert (failed["error"]["type"], finish_reasons([failed]), done) == ("server_error", ["error"], "[DONE]")
    async with api.post("hi [[fail=1]]") as answer:
        assert answer.status == 500


async def test_a_stream_can_end_or_be_cut_or_go_silent(api: Api, base_url: str) -> None:
    assert len(await api.stream("hi [[end_after=4]]")) == 4
    async with api.post("hi [[cut_after=4]] [[delay_ms=1]]", stream=True) as answer:
        frames = [await answer.content.readuntil(b"\n\n") for _ in range(4)]
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert len(parse_frames(b"".join(frames))) == 4
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await api.create("hi [[cut_after=4]]")
    async with api.post("hi [[silence_after=2]]", stream=True) as answer:
        await answer.content.readuntil(b"\n\n")

    async def noticed() -> bool:
        return bool((await seen_by(base_url))["aborted"] == 1)

    await wait_until(noticed)


async def test_failures_can_be_for_the_first_requests_only(api: Api) -> None:
    assert "error" in await api.create("[[fail_times=1]] [[error_event_after=1]]")
    assert "choices" in await api.create("[[fail_times=1]] [[error_event_after=1]]")


async def test_json_fits_the_schema_that_is_asked_for(api: Api) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "size": {"enum": ["small", "large"]},
            "count": {"type": "integer", "maximum": 3},
            "share": {"type": ["number", "null"], "minimum": 99},
            "coastal": {"type": "boolean"},
            "nothing": {"type": "null"},
            "sights": {"type": "array", "items": {"$ref": "#/$defs/sight"}},
            "mayor": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "$defs": {"sight": {"type": "object", "properties": {"name": {"type": "string"}, "kind": {"const": "park"}}}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    chunks = await api.stream('Say "Porto"', response_format=form)
    content = "".join(deltas(chunks, "content"))
    assert orjson.loads(content) == {
        "city": 'Say "Porto"',
        "size": "small",
        "count": 3,
        "share": 99,
        "coastal": True,
        "nothing": None,
        "sights": [{"name": 'Say "Porto"', "kind": "park"}],
        "mayor": 'Say "Porto"',
    }
    assert (await api.create('Say "Porto"', response_format=form))["choices"][0]["message"]["content"] == content
    plain = await api.create("hi", response_format={"type": "json_object"})
    assert orjson.loads(plain["choices"][0]["message"]["content"]) == {"answer": "hi"}


async def test_a_schema_that_never_ends_is_refused(api: Api) -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": endless}}
    async with api.post("hi", response_format=form) as answer:
        assert answer.status == 400
    tree = {"type": "object", "properties": {"v": {"type": "string"}, "c": {"type": "array", "items": {"$ref": "#"}}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": tree}}
    content = (await api.create("hi", response_format=form))["choices"][0]["message"]["content"]
    assert orjson.loads(content)["c"][0]["v"] == "hi"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": "hi"}, "messages"),
        ({"model": "m", "messages": ["hi"]}, "messages[0]"),
        ({"model": "m", "messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ],
)
async def test_bad_requests_are_refused_with_a_reason(base_url: str, body: Json, param: str) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{base_url}/chat/completions", json=body) as answer:
        assert answer.status == 400
        assert orjson.loads(await answer.read())["error"]["param"] == param


@pytest.mark.parametrize("path", PATHS)
async def test_any_path_of_a_provider_will_do(base_url: str, path: str) -> None:
    root = base_url.removesuffix("/v1")
    body = {"messages": [{"role": "user", "content": "hi"}]} | ({} if "deployments" in path else {"model": "gpt-4o"})
    async with (
        aiohttp.ClientSession(headers={"api-key": "sk-azure"}) as http,
        http.post(root + path, json=body) as answer,
    ):
        assert (answer.status, orjson.loads(await answer.read())["model"]) == (200, "gpt-4o")
    (seen,) = (await seen_by(base_url))["requests"]
    assert (seen["path"], seen["body"], seen["key_headers"]) == (path.partition("?")[0], body, ["api-key"])


class TestTheSdk:
    async def test_streams(self, client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
            metadata={"words": "12", "delay_ms": "1"},
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text.startswith("You said: hello. ")
        assert len(text.split()) == 12
        assert chunks[-1].usage is not None

    async def test_streams_with_its_strict_helper(self, client: AsyncOpenAI) -> None:
        for steering in ("", "[[tool=weather]]", "[[refusal=1]]", "[[reasoning=1]]"):
            async with client.chat.completions.stream(
                model="gpt-4o",
                messages=[{"role": "user", "content": f"hello {steering}"}],
                tools=[WEATHER],  # type: ignore[list-item]
            ) as stream:
                completion = await stream.get_final_completion()
            assert completion.choices[0].finish_reason in {"stop", "tool_calls"}

    async def test_raises_what_it_should(self, client: AsyncOpenAI) -> None:
        async def say(text: str) -> None:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": text}], stream=True
            )
            async for _ in stream:
                pass

        for text in ("[[error_event_after=2]]", "[[fail=1]]"):
            with pytest.raises(openai.APIError, match="told to fail"):
                await say(text)
        with pytest.raises(openai.RateLimitError):
            await say("[[status=429]]")

    async def test_needs_the_right_key_where_there_is_one(self) -> None:
        async with running_simulator(api_key="sk-right-and-long") as url, aiohttp.ClientSession() as http:
            async with new_sdk(url, "sk-wrong-and-long") as client:
                with pytest.raises(openai.AuthenticationError):
                    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            for header, status in (("api-key", 200), ("x-api-key", 401)):
                headers = {header: "sk-right-and-long"}
                async with http.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
                    assert answer.status == status
