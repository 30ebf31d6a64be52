"""The simulator speaks Messages as Anthropic does, and is steered as in its Responses."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.upstreams import running_simulator, seen_by

Json = dict[str, Any]

HEADERS = {"x-api-key": "sk-ant-test", "anthropic-version": "2023-06-01"}


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    async with running_simulator() as url:
        yield url


class Api:
    """Raw calls, with nothing between the test and the bytes."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._url = f"{base_url}/messages"

    def post(self, said: Any, /, **fields: Any) -> Any:
        messages = said if isinstance(said, list) else [{"role": "user", "content": said}]
        body = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": messages, **fields}
        return self._session.post(self._url, json=body)

    async def create(self, said: Any, /, **fields: Any) -> Json:
        async with self.post(said, **fields) as answer:
            assert answer.status == 200, await answer.text()
            body: Json = orjson.loads(await answer.read())
            return body

    async def stream(self, said: Any, /, **fields: Any) -> list[Json]:
        async with self.post(said, stream=True, **fields) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            return parse_frames(await answer.read())


@pytest.fixture
async def api(base_url: str) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        yield Api(session, base_url)


def parse_frames(stream: bytes) -> list[Json]:
    """The events of a stream that has nothing but whole, well-formed frames in it."""
    frames = stream.decode().split("\n\n")
    assert frames.pop() == ""
    events = []
    for frame in frames:
        kind, data = frame.split("\n")
        events.append(orjson.loads(data.removeprefix("data: ")))
        assert kind == f"event: {events[-1]['type']}"
    return events


def types(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


def without_deltas(events: list[Json]) -> list[str]:
    return [kind for kind in types(events) if kind != "content_block_delta"]


def folded(events: list[Json]) -> Json:
    """The message that the events of a whole stream add up to, as a client adds them."""
    message: Json = events[0]["message"]
    inputs: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "content_block_delta":
                delta, block = event["delta"], message["content"][event["index"]]
                match delta["type"]:
                    case "input_json_delta":
                        inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
                    case "citations_delta":
                        block["citations"] = [*block.get("citations", []), delta["citation"]]
                    case kind:
                        field = kind.removesuffix("_delta")
                        block[field] += delta[field]
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for index, value in inputs.items():
        message["content"][index]["input"] = orjson.loads(value)
    return message


def without_ids(message: Json) -> Json:
    content = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    return {**message, "id": None, "content": content}


async def test_the_events_have_the_order_and_the_fields_of_anthropic(api: Api) -> None:
    events = await api.stream("Good morning")
    block = ["content_block_start", "ping", "content_block_stop"]
    assert without_deltas(events) == ["message_start", *block, "message_delta", "message_stop"]
    message = folded(events)
    assert message["id"].startswith("msg_01")
    text = "You said: Good morning. This is a simulated answer of claude-sonnet-4-5."
    assert message["content"] == [{"type": "text", "text": text}]
    assert (message["stop_reason"], message["stop_sequence"], message["role"]) == ("end_turn", None, "assistant")
    assert events[0]["message"]["usage"]["input_tokens"] > 0
    assert events[-2]["usage"]["output_tokens"] > 1


@pytest.mark.parametrize(
    ("name", "steering"),
    [
        ("anthropic-text", ""),
        ("anthropic-clear-thinking.1", "[[reasoning=1]]"),
        ("anthropic-tool-no-args", "[[tool=look]]"),
        ("anthropic-refusal", "[[refusal=1]]"),
    ],
)
async def test_the_events_look_like_recorded_ones(api: Api, real_recordings: Path, name: str, steering: str) -> None:
    lines = (real_recordings / "messages" / f"{name}.jsonl").read_bytes().splitlines()
    known = {kind_of(event): event for event in map(orjson.loads, lines)}
    for event in await api.stream(f"hi {steering}"):
        recorded = known[kind_of(event)]
        assert event.keys() <= recorded.keys()
        assert event.get("usage", {}).keys() <= recorded.get("usage", {}).keys()
        assert event.get("message", {}).keys() <= recorded.get("message", {}).keys()


def kind_of(event: Json) -> tuple[str, str]:
    """The type of an event, and of what is in it."""
    return event["type"], (event.get("delta") or event.get("content_block") or {}).get("type", "")


@pytest.mark.parametrize(
    ("steering", "reason"),
    [
        ("", "end_turn"),
        ("[[words=30]]", "end_turn"),
        ("[[reasoning=1]] [[annotations=1]]", "end_turn"),
        ("[[tool=weather,look]] [[reasoning=1]]", "tool_use"),
        ("[[incomplete=1]]", "max_tokens"),
        ("[[content_filter=1]]", "refusal"),
        ("[[refusal=1]]", "refusal"),
    ],
)
async def test_a_message_says_the_same_as_its_stream(api: Api, steering: str, reason: str) -> None:
    message = await api.create(f"hi {steering}")
    assert without_ids(message) == without_ids(folded(await api.stream(f"hi {steering}")))
    assert message["stop_reason"] == reason


async def test_a_refusal_says_nothing(api: Api) -> None:
    events = await api.stream("hi [[refusal=1]]")
    assert types(events) == ["message_start", "ping", "message_delta", "message_stop"]
    assert events[2]["delta"]["stop_details"]["type"] == "refusal"


async def test_half_of_the_answer_comes_where_it_is_cut_short(api: Api) -> None:
    (block,) = (await api.create("hi", metadata={"words": "20", "incomplete": "1"}))["content"]
    assert len(block["text"].split()) == 10


async def test_a_thought_must_come_back_as_it_was(api: Api) -> None:
    said = {"role": "user", "content": "hi [[reasoning=1]]"}
    content = (await api.create([said]))["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]
    again = {"role": "user", "content": "again"}
    await api.create([said, {"role": "assistant", "content": content}, again])
    content[0]["thinking"] += "!"
    async with api.post([said, {"role": "assistant", "content": content}, again]) as answer:
        assert answer.status == 400
        assert b"messages.1.content.0: Invalid `signature`" in await answer.read()


async def test_a_tool_is_called_and_its_result_is_what_was_said(api: Api) -> None:
    said = {"role": "user", "content": [{"type": "text", "text": "hi [[tool=weather]]"}]}
    message = await api.create([said])
    (call,) = message["content"]
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"input": "hi [[tool=weather]]"})
    for content in ("21 °C", [{"type": "text", "text": "21 °C"}]):
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": content}
        answers = [{"role": "assistant", "content": message["content"]}, {"role": "user", "content": [result]}]
        (block,) = (await api.create([said, *answers]))["content"]
        assert block["text"].startswith("You said: 21 °C. ")


async def test_json_fits_the_schema_that_is_asked_for(api: Api) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "count": {"type": "integer"}}}
    form = {"format": {"type": "json_schema", "schema": schema}}
    (block,) = folded(await api.stream("Porto [[words=20]]", output_config=form))["content"]
    value = orjson.loads(block["text"])
    assert value["city"].startswith("Porto [[words=20]] ")
    assert len(value["city"].split()) == 20
    assert isinstance(value["count"], int)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
async def test_a_status_refuses_the_request(api: Api, status: int, kind: str) -> None:
    async with api.post(f"hi [[status={status}]] [[retry_after=2]]", stream=True) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (status, "2")
        body = orjson.loads(await answer.read())
    assert body == {
        "type": "error",
        "error": {"type": kind, "message": f"The simulator was told to answer with status {status}."},
        "request_id": answer.headers["request-id"],
    }


@pytest.mark.parametrize("steering", ["[[error_event_after=3]]", "[[fail=1]]", "[[fail=1]] [[refusal=1]]"])
async def test_an_error_comes_in_the_stream(api: Api, steering: str) -> None:
    *events, error = await api.stream(f"hi {steering} [[error_code=overloaded_error]]")
    assert types(events)[-1] in {"ping", "content_block_delta"}
    assert (error["type"], error["error"]["type"]) == ("error", "overloaded_error")


async def test_an_error_in_an_answer_without_a_stream(api: Api) -> None:
    assert (await api.create("hi [[error_event_after=3]]"))["type"] == "error"
    async with api.post("hi [[fail=1]]") as answer:
        assert answer.status == 500
        assert orjson.loads(await answer.read())["error"]["type"] == "api_error"


async def test_a_thought_is_whole_before_an_answer_fails(api: Api) -> None:
    events = await api.stream("hi [[fail=1]] [[reasoning=1]]")
    block = ["content_block_start", "ping", "content_block_stop"]
    assert without_deltas(events) == ["message_start", *block, "content_block_start", "error"]


async def test_a_stream_can_end_or_be_cut(api: Api) -> None:
    assert len(await api.stream("hi [[end_after=4]]")) == 4
    async with api.post("hi [[cut_after=4]] [[delay_ms=1]]", stream=True) as answer:
        frames = [await answer.content.readuntil(b"\n\n") for _ in range(4)]
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert len(parse_frames(b"".join(frames))) == 4


async def test_the_pace_is_kept(api: Api) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await api.stream("hi [[words=6]] [[delay_ms=20]] [[first_delay_ms=100]]")
    assert 0.2 <= loop.time() - started < 5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens": 1, "messages": []}, "model: Field required"),
        ({"model": "m", "max_tokens": 1}, "messages: Field required"),
        ({"model": "m", "messages": [{"role": "user", "content": "hi"}]}, "max_tokens: Field required"),
        ({"model": "m", "max_tokens": True, "messages": []}, "expected an integer"),
        ({"model": "m", "max_tokens": 0, "messages": []}, "greater than or equal to 1"),
        ({"model": "m", "max_tokens": 1, "messages": []}, "at least one message"),
        ({"model": "m", "max_tokens": 1, "messages": [{"role": "system", "content": "x"}]}, "'user' or 'assistant'"),
        ({"model": "m", "max_tokens": 1, "messages": [{"role": "user"}]}, "messages.0.content"),
        (
            {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "[[custom_tool=x]]"}]},
            "no custom tools",
        ),
    ],
)
async def test_bad_requests_are_refused_in_the_shape_of_anthropic(base_url: str, body: Json, message: str) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{base_url}/messages", json=body) as answer:
        assert answer.status == 400
        refusal = orjson.loads(await answer.read())
    assert (refusal["type"], refusal["error"]["type"]) == ("error", "invalid_request_error")
    assert message in refusal["error"]["message"]
    assert refusal["request_id"]


@pytest.mark.parametrize("path", ["/messages", "/v1/messages", "/anthropic/v1/messages"])
async def test_any_path_of_a_provider_will_do(base_url: str, path: str) -> None:
    root = base_url.removesuffix("/v1")
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        await Api(http, root + path.removesuffix("/messages")).create("hi")
    (seen,) = (await seen_by(base_url))["requests"]
    assert (seen["path"], seen["key_headers"], seen["anthropic_version"]) == (path, ["x-api-key"], "2023-06-01")
    assert seen["body"]["messages"] == [{"role": "user", "content": "hi"}]
    assert "sk-ant-test" not in str(seen)


async def test_needs_the_right_key_where_there_is_one() -> None:
    right = "sk-ant-right-and-long"
    async with running_simulator(api_key=right) as url:
        for headers, status in (
            ({"x-api-key": right}, 200),
            ({"authorization": f"Bearer {right}"}, 200),
            ({"x-api-key": "sk-ant-wrong-and-long"}, 401),
            ({"api-key": right}, 401),
            ({}, 401),
        ):
            async with aiohttp.ClientSession(headers=headers) as http, Api(http, url).post("hi") as answer:
                assert answer.status == status
                body = orjson.loads(await answer.read())
            assert status == 200 or body["error"]["type"] == "authentication_error"
