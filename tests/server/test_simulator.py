"""The simulator behaves on the wire as OpenAI does, and misbehaves exactly as it is told."""

import asyncio
import hashlib
import os
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest
import uvloop
from aiohttp import web
from openai import AsyncOpenAI

from server.simulator import serve_simulator
from server.simulator.directives import Directives, parse_directives
from server.simulator.errors import ApiError
from server.simulator.reply import Reply
from server.simulator.responses.runs import Run, Runs
from tests.support.pages import section
from tests.support.sdk import new_sdk
from tests.support.upstreams import running_exchange, running_replay, running_script, running_simulator
from tests.support.waiting import wait_until

Json = dict[str, Any]

OPENING = ["response.created", "response.in_progress"]
MESSAGE_START = ["response.output_item.added", "response.content_part.added"]
MESSAGE_END = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]

# What the OpenAPI description requires and the recordings of the real API have.
RESPONSE_FIELDS = {
    *("id", "object", "created_at", "status", "background", "completed_at", "error", "frequency_penalty"),
    *("incomplete_details", "instructions", "max_output_tokens", "max_tool_calls", "model", "output"),
    *("parallel_tool_calls", "presence_penalty", "previous_response_id", "prompt_cache_key"),
    *("prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "temperature"),
    *("text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "usage", "user", "metadata"),
}


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    async with running_simulator() as url:
        yield url


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with new_sdk(base_url, "sk-test") as client:
        yield client


class Api:
    """Raw calls to a simulator, with nothing between the test and the bytes."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url

    def post(self, given: Any, /, **fields: Any) -> Any:
        body = {"model": "gpt-5.2", "input": given, **fields}
        return self._session.post(f"{self._base_url}/responses", json=body)

    def get(self, response_id: str, query: str = "") -> Any:
        return self._session.get(f"{self._base_url}/responses/{response_id}{query}")

    async def create(self, given: Any, /, **fields: Any) -> Json:
        async with self.post(given, **fields) as answer:
            assert answer.status == 200, await answer.text()
            return await json_of(answer)

    async def stream(self, given: Any, /, **fields: Any) -> list[Json]:
        async with self.post(given, stream=True, **fields) as answer:
            assert answer.status == 200, await answer.text()
            return parse_frames(await answer.read())

    async def retrieve(self, response_id: str) -> Json:
        async with self.get(response_id) as answer:
            assert answer.status == 200
            return await json_of(answer)

    async def report(self) -> Json:
        root = self._base_url.removesuffix("/v1")
        async with self._session.get(f"{root}/simulator/requests") as answer:
            return await json_of(answer)

    async def reset(self) -> None:
        root = self._base_url.removesuffix("/v1")
        async with self._session.post(f"{root}/simulator/reset") as answer:
            assert answer.status == 200


@pytest.fixture
def api(session: aiohttp.ClientSession, base_url: str) -> Api:
    return Api(session, base_url)


async def json_of(answer: aiohttp.ClientResponse) -> Json:
    body: Json = orjson.loads(await answer.read())
    return body


def parse_frames(stream: bytes) -> list[Json]:
    """The events of a stream that has nothing but whole, well-formed frames in it."""
    events = []
    for frame in stream.decode().split("\n\n")[:-1]:
        kind, data = frame.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        events.append(event)
    assert not stream or stream.endswith(b"\n\n")
    return events


def types(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


def without_deltas(events: list[Json]) -> list[str]:
    return [kind for kind in types(events) if not kind.endswith(".delta")]


def deltas(events: list[Json], kind: str) -> str:
    return "".join(event["delta"] for event in events if event["type"] == f"{kind}.delta")


def text_of(response: Json) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


class TestTheOrderOfEvents:
    async def test_of_a_synchronous_stream(self, api: Api) -> None:
        events = await api.stream("Good morning")
        assert without_deltas(events) == [*OPENING, *MESSAGE_START, *MESSAGE_END, "response.completed"]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[0]["response"]["status"] == "in_progress"

    async def test_of_a_background_stream(self, api: Api) -> None:
        events = await api.stream("Good morning", background=True)
        assert types(events)[:3] == ["response.created", "response.queued", "response.in_progress"]
        statuses = [event["response"]["status"] for event in events if "response" in event]
        assert statuses == ["queued", "queued", "in_progress", "completed"]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))

    async def test_the_deltas_the_done_events_and_the_response_say_the_same(self, api: Api) -> None:
        events = await api.stream("Good morning")
        text = deltas(events, "response.output_text")
        assert text == "You said: Good morning. This is a simulated answer of gpt-5.2."
        done = next(event for event in events if event["type"] == "response.output_text.done")
        assert done["text"] == text == text_of(events[-1]["response"])
        item = next(event["item"] for event in events if event["type"] == "response.output_item.done")
        assert events[-1]["response"]["output"] == [item]
        assert len({event["item_id"] for event in events if "item_id" in event} | {item["id"]}) == 1

    async def test_the_response_is_the_same_one_from_first_to_last(self, api: Api) -> None:
        events = await api.stream("Good morning", metadata={"colour": "blue"}, temperature=0.5)
        responses = [event["response"] for event in events if "response" in event]
        assert len({response["id"] for response in responses}) == 1
        assert re.fullmatch(r"resp_[0-9a-f]{50}", responses[0]["id"])
        assert all(r["metadata"] == {"colour": "blue"} and r["temperature"] == 0.5 for r in responses)

    async def test_deltas_are_padded_unless_the_client_says_no(self, api: Api) -> None:
        padded = await api.stream("hi")
        plain = await api.stream("hi", stream_options={"include_obfuscation": False})
        assert all("obfuscation" in event for event in padded if "delta" in event)
        assert not any("obfuscation" in event for event in plain)


class TestResponses:
    async def test_an_answer_has_every_field_of_a_real_one(self, api: Api) -> None:
        response = await api.create("hi", tools=[{"type": "function", "name": "look"}], text={"verbosity": "low"})
        assert response.keys() >= RESPONSE_FIELDS
        assert (response["status"], response["object"], response["model"]) == (
            "completed",
            "response",
            "gpt-5.2",
        )
        assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}
        tool = {"type": "function", "name": "look", "description": None, "parameters": None, "strict": True}
        assert response["tools"] == [tool]
        usage = response["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0

    @pytest.mark.parametrize(
        "given",
        [
            "two  spaces,\n\na tab\tand ünïcode ☂",
            [{"role": "user", "content": "first"}, {"role": "user", "content": "second"}],
            [
                {"role": "user", "content": "long ago"},
                {"role": "assistant", "content": "[[unknown=1]]"},
                {"role": "user", "content": [{"type": "input_text", "text": "first\nsecond"}]},
            ],
        ],
        ids=["text", "two messages", "a conversation"],
    )
    async def test_the_input_of_the_turn_is_in_the_output_as_it_was_written(self, api: Api, given: Any) -> None:
        text = text_of(await api.create(given))
        expected = given if isinstance(given, str) else "first\nsecond"
        assert text.startswith(f"You said: {expected}. ")
        assert "long ago" not in text

    async def test_a_tool_result_is_what_was_said(self, api: Api) -> None:
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "c", "output": "42"}
        assert text_of(await api.create([call, result])).startswith("You said: 42.")

    async def test_json_fits_the_schema_that_is_asked_for(self, api: Api) -> None:
        schema = {"type": "object", "properties": {"city": {"type": "string"}, "coastal": {"type": "boolean"}}}
        form = {"type": "json_schema", "name": "city", "schema": schema}
        response = await api.create("Porto", text={"format": form})
        assert orjson.loads(text_of(response)) == {"city": "Porto", "coastal": True}
        assert response["text"]["format"] == form

    async def test_a_chained_answer_mentions_the_turn_before(self, api: Api) -> None:
        first = await api.create("I am Castor")
        second = await api.create("Who am I?", previous_response_id=first["id"])
        assert second["previous_response_id"] == first["id"]
        assert "You said: Who am I?. Before that you said: I am Castor." in text_of(second)

    async def test_a_very_long_input_is_repeated_in_part(self, api: Api) -> None:
        text = text_of(await api.create("x" * 100_000))
        assert "x" * 20_000 + "… (100000 characters)" in text

    async def test_a_synchronous_response_can_be_fetched_unless_it_is_not_stored(self, api: Api) -> None:
        kept = await api.create("keep")
        assert await api.retrieve(kept["id"]) == kept
        forgotten = await api.create("forget", store=False)
        async with api.get(forgotten["id"]) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("base", ["", "/openai/v1", "/api/v1"])
async def test_any_path_of_a_provider_will_do(session: aiohttp.ClientSession, base_url: str, base: str) -> None:
    root = base_url.removesuffix("/v1")
    async with new_sdk(root + base, "sk-test") as client:
        created = await client.responses.create(model="gpt-5.2", input="hi", background=True)
        assert (await client.responses.retrieve(created.id)).status == "completed"
        assert "gpt-5.2" in [model.id async for model in client.models.list()]
    paths = [seen["path"] for seen in (await Api(session, base_url).report())["requests"]]
    assert paths == [f"{base}/responses", f"{base}/responses/{created.id}", f"{base}/models"]


class TestDirectives:
    def test_all_of_them_are_in_the_table_of_the_page(self) -> None:
        documented = re.findall(r"^\| `(\w+)=", section("The simulator"), re.MULTILINE)
        assert documented == [field.name for field in fields(Directives)]

    def test_they_come_from_the_text_and_from_the_metadata_and_the_text_wins(self) -> None:
        directives = parse_directives(
            "Tell me [[words=3]] or [[ delay_ms = 0.5 ]]", {"words": "9", "rate_limit": "x", "fail": "1"}
        )
        assert directives == Directives(words=3, delay_ms=0.5, fail=True)

    def test_brackets_without_an_assignment_are_text(self) -> None:
        assert parse_directives("[[page]] [x=1] [[", {}) == Directives()

    @pytest.mark.parametrize(
        ("text", "metadata", "message"),
        [
            ("[[wrods=3]]", {}, "Unknown directive 'wrods'"),
            ("[[words=many]]", {}, "Invalid value 'many' for the directive 'words'"),
            ("[[words=0]]", {}, "whole number from 1"),
            ("[[words=99999999999999999999]]", {}, "whole number from 1"),
            ("[[delay_ms=nan]]", {}, "expected a number"),
            ("[[delay_ms=-1]]", {}, "expected a number"),
            ("[[fail=perhaps]]", {}, "expected 1 or 0"),
            ("[[tool=]]", {}, "expected some text"),
            ("[[status=200]]", {}, "from 400 to 599"),
            ("[[delay_ms=1]] [[rate=2]]", {}, "give one of them"),
            ("[[duration_s=1]] [[words=2]]", {}, "goes with 'rate'"),
            ("[[duration_s=3600]] [[rate=100]]", {}, "more than 50000 words"),
            ("[[error_only=1]]", {}, "needs 'error_event_after'"),
            ("", {"words": 3}, "Invalid type for 'metadata.words': expected a string"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, text: str, metadata: Json, message: str) -> None:
        with pytest.raises(ApiError, match=re.escape(message)) as refusal:
            parse_directives(text, metadata)
        assert refusal.value.status == 400

    async def test_an_unknown_one_is_a_400_on_the_wire(self, api: Api) -> None:
        async with api.post("[[wrods=3]]") as answer:
            assert answer.status == 400
            error = (await json_of(answer))["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == "invalid_directive"
        assert "words" in error["message"]

    async def test_words_sets_the_length(self, api: Api) -> None:
        events = await api.stream("hi", metadata={"words": "200"})
        assert types(events).count("response.output_text.delta") == 200
        assert len(text_of(events[-1]["response"]).split()) == 200

    @pytest.mark.parametrize(
        ("steering", "words", "least_s"),
        [
            ({"delay_ms": "20", "words": "6"}, 6, 0.2),
            ({"rate": "50", "words": "6"}, 6, 0.2),
            ({"duration_s": "0.2", "rate": "100"}, 20, 0.2),
            ({"duration_s": "0.2"}, 4, 0.2),
            ({"first_delay_ms": "200"}, 10, 0.2),
        ],
    )
    async def test_the_pace_is_kept(self, api: Api, steering: Json, words: int, least_s: float) -> None:
        loop = asyncio.get_running_loop()
        for streamed in (True, False):
            started = loop.time()
            async with api.post("hi", stream=streamed, metadata=steering) as answer:
                body = await answer.read()
            assert least_s <= loop.time() - started < least_s + 5
            if streamed:
                assert types(parse_frames(body)).count("response.output_text.delta") == words

    async def test_events_come_one_by_one(self, api: Api) -> None:
        pieces: list[int] = []
        steering = {"delay_ms": "30", "words": "4", "first_delay_ms": "30"}
        async with api.post("hi", stream=True, metadata=steering) as answer:
            async for piece, _ in answer.content.iter_chunks():
                pieces.append(piece.count(b"event: "))
        assert sum(pieces) == len(OPENING) + len(MESSAGE_START) + 4 + len(MESSAGE_END) + 1
        assert max(pieces) <= 3

    async def test_a_tool_call_has_its_arguments_streamed(self, api: Api) -> None:
        events = await api.stream("hi [[tool=get_weather]]")
        kind = "response.function_call_arguments"
        ends = [f"{kind}.done", "response.output_item.done", "response.completed"]
        assert without_deltas(events) == [*OPENING, "response.output_item.added", *ends]
        (call,) = events[-1]["response"]["output"]
        assert (call["type"], call["name"]) == ("function_call", "get_weather")
        assert orjson.loads(call["arguments"]) == {"input": "hi [[tool=get_weather]]"}
        assert deltas(events, kind) == call["arguments"]
        assert types(events).count(f"{kind}.delta") > 2

    async def test_several_functions_are_called_one_after_the_other(self, api: Api) -> None:
        response = await api.create("hi", metadata={"tool": "weather, look"})
        assert [item["name"] for item in response["output"]] == ["weather", "look"]
        assert len({item["call_id"] for item in response["output"]}) == 2

    async def test_a_custom_tool_call_has_its_input_streamed(self, api: Api) -> None:
        events = await api.stream("hi", metadata={"custom_tool": "write_sql", "tool": "look"})
        function, custom = events[-1]["response"]["output"]
        assert (function["type"], custom["type"], custom["name"]) == (
            "function_call",
            "custom_tool_call",
            "write_sql",
        )
        assert deltas(events, "response.custom_tool_call_input") == custom["input"] == "hi"

    async def test_reasoning_comes_first_with_summary_and_text(self, api: Api) -> None:
        events = await api.stream("hi [[reasoning=1]]")
        thought, message = events[-1]["response"]["output"]
        assert (thought["type"], message["type"]) == ("reasoning", "message")
        assert deltas(events, "response.reasoning_summary_text") == thought["summary"][0]["text"]
        assert deltas(events, "response.reasoning_text") == thought["content"][0]["text"]
        assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0

    async def test_annotations_are_added_and_kept(self, api: Api) -> None:
        events = await api.stream("hi [[annotations=1]]")
        (added,) = [event for event in events if event["type"] == "response.output_text.annotation.added"]
        part = events[-1]["response"]["output"][0]["content"][0]
        assert part["annotations"] == [added["annotation"]]
        assert added["annotation"]["end_index"] == len(part["text"])

    async def test_a_refusal_is_a_content_part_of_its_own(self, api: Api) -> None:
        events = await api.stream("hi [[refusal=1]]")
        (part,) = events[-1]["response"]["output"][0]["content"]
        assert part == {"type": "refusal", "refusal": deltas(events, "response.refusal")}

    async def test_an_incomplete_answer_is_half_of_one(self, api: Api) -> None:
        events = await api.stream("hi [[incomplete=1]] [[words=20]]")
        assert types(events)[-1] == "response.incomplete"
        response = events[-1]["response"]
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][0]["status"] == response["status"] == "incomplete"
        assert types(events).count("response.output_text.delta") == 10

    async def test_a_filtered_answer_is_half_of_one_too(self, api: Api) -> None:
        response = await api.create("hi [[content_filter=1]] [[words=20]]")
        assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
        assert len(text_of(response).split()) == 10

    async def test_a_failed_answer_breaks_off_unfinished(self, api: Api) -> None:
        events = await api.stream("hi [[fail=1]] [[error_code=rate_limit_exceeded]]")
        assert without_deltas(events) == [*OPENING, *MESSAGE_START, "response.failed"]
        assert events[-1]["response"]["error"]["code"] == "rate_limit_exceeded"
        response = await api.create("hi [[fail=1]]")
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")

    @pytest.mark.parametrize("number", [0, 5])
    async def test_an_error_event_is_followed_by_failed(self, api: Api, number: int) -> None:
        text = f"hi [[error_event_after={number}]] [[error_code=insufficient_quota]]"
        events = await api.stream(text)
        assert types(events)[number:] == ["error", "response.failed"]
        assert [event["sequence_number"] for event in events] == list(range(number + 2))
        error = events[number]["error"]
        assert error.keys() == {"type", "code", "message", "param"}
        assert error["code"] == events[-1]["response"]["error"]["code"] == "insufficient_quota"

    async def test_an_error_event_can_stand_alone(self, api: Api) -> None:
        events = await api.stream("hi [[error_event_after=4]] [[error_only=1]]")
        assert types(events)[4:] == ["error"]
        response = await api.create("hi [[error_event_after=4]] [[error_only=1]]")
        assert response["status"] == "failed"

    async def test_a_stream_can_end_without_a_terminal_event(self, api: Api) -> None:
        events = await api.stream("hi [[end_after=6]]")
        assert len(events) == 6

    @pytest.mark.parametrize("number", [0, 6])
    async def test_a_stream_can_be_cut(self, api: Api, number: int) -> None:
        received: list[bytes] = []
        async with api.post(f"hi [[cut_after={number}]] [[delay_ms=1]]", stream=True) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await collect(answer, received)
        assert len(parse_frames(b"".join(received))) == number
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await api.create(f"hi [[cut_after={number}]] [[delay_ms=1]]")
        await wait_until(lambda: none_open(api))
        assert (await api.report())["aborted"] == 0

    async def test_what_comes_after_more_events_than_there_are_does_not_come(self, api: Api) -> None:
        steering = dict.fromkeys(("cut_after", "end_after", "silence_after", "error_event_after"), "900")
        events = await api.stream("hi", metadata=steering)
        assert types(events)[-1] == "response.completed"
        assert (await api.create("hi", metadata=steering))["status"] == "completed"

    async def test_the_sequence_numbers_can_be_left_out(self, api: Api) -> None:
        events = await api.stream("hi [[no_sequence=1]]")
        assert not any("sequence_number" in event for event in events)

    @pytest.mark.parametrize(
        ("status", "kind", "code"),
        [
            (400, "invalid_request_error", None),
            (404, "invalid_request_error", "model_not_found"),
            (429, "requests", "rate_limit_exceeded"),
            (500, "server_error", None),
            (503, "server_error", None),
        ],
    )
    async def test_a_status_refuses_the_request(self, api: Api, status: int, kind: str, code: str | None) -> None:
        async with api.post(f"[[status={status}]] [[retry_after=2]]", stream=True) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (status, "2")
            error = (await json_of(answer))["error"]
        assert (error["type"], error["code"]) == (kind, code)

    async def test_the_code_of_a_refusal_can_be_chosen(self, api: Api) -> None:
        async with api.post("[[status=400]] [[error_code=invalid_prompt]]") as answer:
            assert (await json_of(answer))["error"]["code"] == "invalid_prompt"

    async def test_failures_can_be_for_the_first_requests_only(self, api: Api) -> None:
        async def statuses(text: str) -> list[int]:
            answers = []
            for _ in range(4):
                async with api.post(text) as answer:
                    answers.append(answer.status)
            return answers

        assert await statuses("[[fail_times=2]]") == [500, 500, 200, 200]
        assert await statuses("[[fail_times=1]] [[status=429]]") == [429, 200, 200, 200]
        assert await statuses("once more [[fail_times=1]] [[fail_key=a]]") == [500, 200, 200, 200]
        assert await statuses("and again [[fail_times=1]] [[fail_key=a]]") == [200, 200, 200, 200]

    async def test_a_stream_can_fail_once_and_then_go_well(self, api: Api) -> None:
        assert len(await api.stream("[[fail_times=1]] [[end_after=3]]")) == 3
        assert types(await api.stream("[[fail_times=1]] [[end_after=3]]"))[-1] == "response.completed"


async def collect(answer: aiohttp.ClientResponse, received: list[bytes]) -> None:
    async for piece in answer.content.iter_any():
        received.append(piece)  # noqa: PERF401 - what came before a cut must not be lost with it


async def none_open(api: Api) -> bool:
    open_now: int = (await api.report())["open"]
    return open_now == 0


class TestHangUps:
    @pytest.mark.parametrize("streamed", [True, False], ids=["of a stream", "of a JSON answer"])
    async def test_are_noticed_while_nothing_is_sent(self, api: Api, streamed: bool) -> None:
        async def hold() -> None:
            async with api.post("hi [[silence_after=3]]", stream=streamed) as answer:
                await answer.read()

        async def being_served() -> bool:
            open_now: int = (await api.report())["open"]
            return open_now == 1

        holding = asyncio.create_task(hold())
        await wait_until(being_served)
        assert (await api.report())["aborted"] == 0
        holding.cancel()
        await wait_until(lambda: none_open(api), timeout_s=1)
        assert (await api.report())["aborted"] == 1

    async def test_leave_a_background_response_running(self, api: Api) -> None:
        text = "hi [[words=20]] [[delay_ms=10]]"
        async with api.post(text, stream=True, background=True) as answer:
            (first, *_) = parse_frames(await answer.content.readuntil(b"\n\n"))
        await wait_until(lambda: none_open(api), timeout_s=1)
        response_id = first["response"]["id"]
        await wait_until(lambda: has_status(api, response_id, "completed"))

    async def test_forget_a_synchronous_response(self, api: Api) -> None:
        async with api.post("hi [[silence_after=2]]", stream=True) as answer:
            (first, *_) = parse_frames(await answer.content.readuntil(b"\n\n"))
        await wait_until(lambda: none_open(api), timeout_s=1)
        async with api.get(first["response"]["id"]) as answer:
            assert answer.status == 404


async def has_status(api: Api, response_id: str, status: str) -> bool:
    current: str = (await api.retrieve(response_id))["status"]
    return current == status


class TestBackground:
    async def test_goes_from_queued_over_in_progress_to_completed(self, api: Api) -> None:
        text = "hi [[first_delay_ms=150]] [[duration_s=0.3]]"
        created = await api.create(text, background=True)
        assert (created["status"], created["output"]) == ("queued", [])
        seen = ["queued"]

        async def completed() -> bool:
            now = await api.retrieve(created["id"])
            if now["status"] != seen[-1]:
                seen.append(now["status"])
            assert now["id"] == created["id"]
            assert now["status"] == "completed" or now["output"] == []
            return seen[-1] == "completed"

        await wait_until(completed)
        assert seen == ["queued", "in_progress", "completed"]
        final = await api.retrieve(created["id"])
        assert text_of(final).startswith(f"You said: {text}.")
        assert final["background"] is True
        assert final["completed_at"] >= final["created_at"]

    async def test_any_number_of_streams_see_the_same_events(self, api: Api) -> None:
        async with api.post("hi [[delay_ms=5]]", stream=True, background=True) as answer:
            first = await answer.content.readuntil(b"\n\n")
            response_id = parse_frames(first)[0]["response"]["id"]
            async with api.get(response_id, "?stream=true") as other:
                replayed = await other.read()
            assert first + await answer.read() == replayed

    @pytest.mark.parametrize("after", [-1, 0, 4, 12, 999])
    async def test_a_resumed_stream_goes_on_with_the_next_event(self, api: Api, after: int) -> None:
        whole = await api.stream("hi [[end_after=3]] [[delay_ms=2]]", background=True)
        query = f"?stream=true&starting_after={after}"
        async with api.get(whole[0]["response"]["id"], query) as answer:
            rest = parse_frames(await answer.read())
        async with api.get(whole[0]["response"]["id"], "?stream=true") as answer:
            full = parse_frames(await answer.read())
        assert full[:3] == whole
        assert types(full)[-1] == "response.completed"
        assert rest == full[after + 1 :]

    async def test_a_cancel_ends_the_run_and_its_streams(self, api: Api, client: AsyncOpenAI) -> None:
        text = "hi [[words=5000]] [[delay_ms=20]]"
        async with api.post(text, stream=True, background=True) as answer:
            first = await answer.content.readuntil(b"\n\n")
            response_id = parse_frames(first)[0]["response"]["id"]
            await answer.content.readuntil(b"output_text.delta")
            cancelled = await client.responses.cancel(response_id)
            rest = b"event: response.output_text.delta" + await answer.read()
        assert cancelled.status == "cancelled"
        assert await client.responses.cancel(response_id) == cancelled
        last = parse_frames(rest)[-1]
        assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
        async with api.get(response_id, "?stream=true") as answer:
            log = parse_frames(await answer.read())
        assert log[-1] == last
        assert [event["sequence_number"] for event in log] == list(range(len(log)))

    async def test_what_misbehaves_ends_as_it_was_told(self, api: Api) -> None:
        for text, status in (
            ("[[fail=1]]", "failed"),
            ("[[incomplete=1]]", "incomplete"),
            ("[[error_event_after=2]] [[error_only=1]]", "failed"),
        ):
            created = await api.create(text, background=True)
            assert (await api.retrieve(created["id"]))["status"] == status


class TestTheSdk:
    async def test_creates(self, client: AsyncOpenAI) -> None:
        response = await client.responses.create(model="gpt-5.2", input="hello")
        assert response.output_text == "You said: hello. This is a simulated answer of gpt-5.2."
        assert response.usage is not None

    @pytest.mark.parametrize(
        "steering",
        ["", "[[reasoning=1]]", "[[tool=look]]", "[[custom_tool=sql]]", "[[refusal=1]]", "[[annotations=1]]"],
    )
    async def test_streams_with_its_strict_helper(self, client: AsyncOpenAI, steering: str) -> None:
        async with client.responses.stream(model="gpt-5.2", input=f"hello {steering}") as stream:
            final = await stream.get_final_response()
        assert final.status == "completed"
        assert final.id.startswith("resp_")

    async def test_runs_in_the_background_and_resumes(self, client: AsyncOpenAI) -> None:
        stream = await client.responses.create(
            model="gpt-5.2",
            input="hello",
            background=True,
            stream=True,
            metadata={"words": "40", "delay_ms": "5"},
        )
        response_id, cursor = "", -1
        async for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
            assert event.type != "error"
            cursor = event.sequence_number
            if cursor == 7:
                break
        await stream.close()
        resumed = await client.responses.retrieve(response_id, stream=True, starting_after=cursor)
        rest = [event async for event in resumed]
        assert [event.sequence_number for event in rest] == list(range(8, 8 + len(rest)))
        assert rest[-1].type == "response.completed"
        async with client.responses.stream(response_id=response_id, starting_after=cursor) as strict:
            seen = [event async for event in strict]
            final = await strict.get_final_response()
        assert [event.type for event in seen] == [event.type for event in rest]
        assert final.output_text == (await client.responses.retrieve(response_id)).output_text
        deleted = await client.responses.with_raw_response.delete(response_id)
        assert orjson.loads(deleted.content) == {"id": response_id, "object": "response", "deleted": True}
        with pytest.raises(openai.NotFoundError, match=f"Response with id '{response_id}' not found"):
            await client.responses.retrieve(response_id)

    async def test_lists_the_input_items(self, client: AsyncOpenAI) -> None:
        response = await client.responses.create(
            model="gpt-5.2", input=[{"role": "user", "content": f"part {n}"} for n in range(5)]
        )
        page = await client.responses.input_items.list(response.id, limit=2, order="asc")
        texts = [item.to_dict()["content"][0]["text"] async for item in page]  # type: ignore[index]
        assert texts == [f"part {n}" for n in range(5)]
        newest = await client.responses.input_items.list(response.id, limit=1)
        assert newest.data[0].to_dict()["content"] == [{"type": "input_text", "text": "part 4"}]
        assert newest.has_more
        with pytest.raises(openai.BadRequestError, match="limit"):
            await client.responses.input_items.list(response.id, limit=101)

    async def test_retries_what_fails_once(self, api: Api, base_url: str) -> None:
        async with new_sdk(base_url, "sk-test", max_retries=1) as client:
            response = await client.responses.create(
                model="gpt-5.2", input="[[status=500]] [[fail_times=1]] [[retry_after=0.01]]"
            )
        assert response.status == "completed"
        assert (await api.report())["count"] == 2

    async def test_raises_on_an_error_event(self, client: AsyncOpenAI) -> None:
        stream = await client.responses.create(model="m", input="[[error_event_after=3]]", stream=True)
        with pytest.raises(openai.APIError, match="told to fail"):
            async for _ in stream:
                pass

    async def test_sees_refused_operations(self, client: AsyncOpenAI) -> None:
        done = await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.BadRequestError, match=r"Cannot cancel a synchronous response\."):
            await client.responses.cancel(done.id)
        with pytest.raises(openai.BadRequestError, match="not created with stream=true"):
            await client.responses.retrieve(done.id, stream=True)
        endings = {"hi": "completed", "[[fail=1]]": "failed", "[[incomplete=1]]": "incomplete"}
        for text, status in endings.items():
            ended = await client.responses.create(model="m", input=text, background=True)
            with pytest.raises(openai.BadRequestError, match=rf"Cannot cancel a {status} response\."):
                await client.responses.cancel(ended.id)
            with pytest.raises(openai.BadRequestError, match="not created with stream=true"):
                await client.responses.retrieve(ended.id, stream=True)
        for call in (client.responses.cancel, client.responses.delete, client.responses.retrieve):
            with pytest.raises(openai.NotFoundError, match=r"Response with id 'resp_none' not found\."):
                await call("resp_none")
        with pytest.raises(openai.BadRequestError, match="Previous response") as refusal:
            await client.responses.create(model="m", input="hi", previous_response_id="resp_none")
        assert (refusal.value.code, refusal.value.param) == (
            "previous_response_not_found",
            "previous_response_id",
        )

    async def test_lists_models(self, client: AsyncOpenAI) -> None:
        names = [model.id async for model in client.models.list()]
        assert "gpt-5.2" in names
        assert (await client.models.retrieve("gpt-5.2")).id == "gpt-5.2"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("none")

    async def test_needs_the_right_key_where_there_is_one(self) -> None:
        async with running_simulator(api_key="sk-right-and-long") as url:
            async with new_sdk(url, "sk-right-and-long") as client:
                assert (await client.responses.create(model="m", input="hi")).status == "completed"
            async with new_sdk(url, "sk-wrong-and-long") as client:
                with pytest.raises(openai.AuthenticationError, match=r"Incorrect API key provided: sk-…long\."):
                    await client.responses.create(model="m", input="hi")


class TestBadRequests:
    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            (b"", "invalid_json", None),
            (b"{", "invalid_json", None),
            (b"[]", "invalid_json", None),
            (b"\xff", "invalid_json", None),
            (b"[" * 100_000, "invalid_json", None),
            (b"{}", "missing_required_parameter", "model"),
            (b'{"model": "m"}', "missing_required_parameter", "input"),
            (b'{"model": 1, "input": "hi"}', "invalid_type", "model"),
            (b'{"model": "m", "input": 1}', "invalid_type", "input"),
            (b'{"model": "m", "input": [1]}', "invalid_type", "input[0]"),
            (b'{"model": "m", "input": [{"role": "user"}]}', "invalid_type", "input[0].content"),
            (b'{"model": "m", "input": "hi", "background": "yes"}', "invalid_type", "background"),
            (b'{"model": "m", "input": "hi", "metadata": []}', "invalid_type", "metadata"),
        ],
    )
    async def test_are_refused_with_a_reason(
        self, session: aiohttp.ClientSession, base_url: str, body: bytes, code: str, param: str | None
    ) -> None:
        async with session.post(f"{base_url}/responses", data=body) as answer:
            assert answer.status == 400
            error = (await json_of(answer))["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)

    async def test_routes_that_do_not_exist_answer_in_the_same_shape(
        self, session: aiohttp.ClientSession, base_url: str
    ) -> None:
        async with session.get(f"{base_url}/chat") as answer:
            assert answer.status == 404
            assert (await json_of(answer))["error"]["type"] == "invalid_request_error"
        async with session.put(f"{base_url}/responses") as answer:
            assert answer.status == 405
            assert (await json_of(answer))["error"]["type"] == "invalid_request_error"

    async def test_a_cursor_that_is_no_number_is_refused(self, api: Api) -> None:
        events = await api.stream("hi", background=True)
        async with api.get(events[0]["response"]["id"], "?stream=true&starting_after=x") as answer:
            assert answer.status == 400
            assert (await json_of(answer))["error"]["param"] == "starting_after"

    async def test_null_means_absent(self, api: Api) -> None:
        response = await api.create("hi", background=None, stream=None, metadata=None, tools=None, store=None)
        assert (response["status"], response["background"]) == ("completed", False)


class TestTheReport:
    async def test_tells_what_arrived_and_reset_forgets_it(self, api: Api, session: aiohttp.ClientSession) -> None:
        session.headers["authorization"] = "Bearer sk-test"
        response = await api.create("hi", background=True)
        await api.retrieve(response["id"])
        report = await api.report()
        assert (report["count"], report["open"], report["aborted"]) == (2, 0, 0)
        created, polled = report["requests"]
        assert created["authorization_sha256"] == hashlib.sha256(b"Bearer sk-test").hexdigest()
        expected = ("POST", "/v1/responses", "gpt-5.2", True, False)
        keys = ("method", "path", "model", "background", "stream")
        assert tuple(created[key] for key in keys) == expected
        assert (polled["method"], polled["path"]) == ("GET", f"/v1/responses/{response['id']}")
        await api.reset()
        assert (await api.report())["count"] == 0
        async with api.get(response["id"]) as answer:
            assert answer.status == 404

    async def test_the_hash_is_of_the_bytes_that_were_sent(
        self, api: Api, session: aiohttp.ClientSession, base_url: str
    ) -> None:
        body = b'{ "model":"m","input" : "hi" }'
        async with session.post(f"{base_url}/responses", data=body) as answer:
            assert answer.status == 200
        (seen,) = (await api.report())["requests"]
        assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()
        assert seen["authorization_sha256"] is None
        assert seen["body"] == orjson.loads(body)

    async def test_says_which_headers_carried_a_key_but_no_key(self, api: Api, session: aiohttp.ClientSession) -> None:
        session.headers.update({"authorization": "Bearer sk-first", "x-api-key": "sk-second"})
        await api.create("hi")
        report = await api.report()
        assert report["requests"][0]["key_headers"] == ["authorization", "x-api-key"]
        assert not re.search("sk-first|sk-second", str(report))

    async def test_keeps_no_long_body(self, api: Api) -> None:
        await api.create("x" * 20_000)
        assert (await api.report())["requests"][0]["body"] is None


async def test_two_hundred_streams_at_once_each_get_their_own_answer(api: Api) -> None:
    async def one(n: int) -> None:
        events = await api.stream(f"number {n} [[duration_s=0.5]] [[rate=50]]")
        assert types(events)[-1] == "response.completed"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert f"You said: number {n} " in text_of(events[-1]["response"])

    await asyncio.gather(*(one(n) for n in range(200)))


def new_run(response_id: str, directives: Directives, size_bytes: int = 1) -> Run:
    request = {"model": "m", "input": "hi", "background": True}
    return Run(Reply(response_id, request, "hi", directives, 0.0), [], size_bytes)


async def test_the_oldest_runs_that_are_over_make_room() -> None:
    runs = Runs(limit=3, limit_bytes=100)
    endless = Directives(silence_after=4)
    for run in (new_run("a", endless), new_run("b", Directives()), new_run("c", Directives())):
        runs.add(run)
    runs.add(new_run("d", Directives()))
    assert [runs.find(key) is not None for key in "abcd"] == [True, False, True, True]
    runs.add(new_run("e", endless, size_bytes=99))
    assert [runs.find(key) is not None for key in "acde"] == [True, False, False, True]
    with pytest.raises(ApiError, match="try again later"):
        runs.add(new_run("f", Directives()))
    runs.clear()
    runs.add(new_run("f", Directives()))


async def test_it_serves_until_it_is_told_to_stop(session: aiohttp.ClientSession) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_simulator("127.0.0.1", 0, on_ready=ready.set_result))
    api = Api(session, await ready)
    async with api.post("hi [[silence_after=3]]", stream=True) as answer:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await serving


def test_cuts_and_hang_ups_are_the_same_on_uvloop() -> None:
    async def scenario() -> None:
        async with running_simulator() as url, aiohttp.ClientSession() as session:
            api = Api(session, url)
            received: list[bytes] = []
            async with api.post("hi [[cut_after=6]]", stream=True) as answer:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await collect(answer, received)
            assert len(parse_frames(b"".join(received))) == 6
            async with api.post("hi [[silence_after=2]]", stream=True) as answer:
                await answer.content.readuntil(b"\n\n")
            await wait_until(lambda: none_open(api), timeout_s=1)
            assert (await api.report())["aborted"] == 1

    uvloop.run(scenario())


class TestOtherUpstreams:
    async def test_a_replay_streams_the_lines_of_a_recording(
        self, session: aiohttp.ClientSession, tmp_path: Path
    ) -> None:
        lines = [b'{"type":"response.created","x": 1}', b'{"type":"response.completed"}']
        (tmp_path / "r.jsonl").write_bytes(b"\n".join(lines))
        async with running_replay(tmp_path / "r.jsonl") as upstream:
            api = Api(session, upstream.base_url)
            async with api.post("hi", stream=True) as answer:
                body = await answer.read()
            async with api.post("hi") as answer:
                assert answer.status == 400
        assert body == b"".join(
            b"event: %b\ndata: %b\n\n" % (kind, line)
            for kind, line in zip((b"response.created", b"response.completed"), lines, strict=True)
        )
        assert [request.json["input"] for request in upstream.requests] == ["hi", "hi"]

    async def test_an_exchange_answers_pair_by_pair(self, session: aiohttp.ClientSession, tmp_path: Path) -> None:
        def pair(method: str, path: str, **answer: Any) -> Json:
            answer = {"status": 200, "headers": {"openai-version": ["v1"]}, **answer}
            return {"request": {"method": method, "path": path}, "response": answer}

        pairs = [
            pair("POST", "/v1/responses", json={"id": "a"}),
            pair("GET", "/v1/responses/a?stream=false", json={"n": 1}),
            pair("GET", "/v1/responses/a?stream=false", json={"n": 2}, status=202),
            pair("GET", "/v1/responses/a?starting_after=0&stream=true", sse="event: x\ndata: {}\n\n"),
        ]
        (tmp_path / "e.exchange.json").write_bytes(orjson.dumps(pairs))
        async with running_exchange(tmp_path / "e.exchange.json") as upstream:
            api = Api(session, upstream.base_url)
            assert await api.create("hi") == {"id": "a"}
            seen = []
            for query in ("", "?stream=false", ""):
                async with api.get("a", query) as answer:
                    seen.append((answer.status, await json_of(answer), answer.headers["openai-version"]))
            async with api.get("a", "?stream=true&starting_after=0") as answer:
                assert await answer.read() == b"event: x\ndata: {}\n\n"
            async with api.get("b") as answer:
                assert answer.status == 404
        assert seen == [(200, {"n": 1}, "v1"), (202, {"n": 2}, "v1"), (202, {"n": 2}, "v1")]
        assert upstream.requests[1].path_qs == "/v1/responses/a"

    async def test_a_script_does_whatever_it_likes(self, session: aiohttp.ClientSession) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(status=418, body=await request.read())

        async with (
            running_script(handler) as upstream,
            session.put(f"{upstream.base_url}/any/thing?x=1", data=b"tea") as answer,
        ):
            assert (answer.status, await answer.read()) == (418, b"tea")
        (request,) = upstream.requests
        assert (request.method, request.path_qs, request.body) == ("PUT", "/v1/any/thing?x=1", b"tea")
