"""JSON that JavaScript cut, numbers beyond all, labels that lie: the client gets its response, under its own id."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from tests.support.replica import CACHED, NATIVE, create, ended, make_config, running_replica
from tests.support.scripts import (
    COMPLETED,
    CREATED,
    KEEPALIVE,
    OUTPUT,
    RAW_ID,
    WELL,
    answering,
    failed,
    plain,
    streaming,
)
from tests.support.sse import read_stream
from tests.support.upstreams import running_script

RAW = RAW_ID % 0
ODD = {
    "half an emoji": (rb"\ud83d", "\ud83d"),
    "the other half": (rb"\ude00 end", "\ude00 end"),
    "bytes that are no UTF-8": (b"\xff", "\ufffd"),
}
ODD_NUMBERS = {b"1e400": float("inf"), b"-1e999": float("-inf"), b"18446744073709551616": 2**64}


def response_with(text: bytes, number: bytes = b"1") -> bytes:
    item = rb'{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text",'
    item += rb'"text":"%b","annotations":[]}]}' % text
    return b'{"id":"%b","object":"response","status":"completed","output":[%b],"odd":%b}' % (RAW.encode(), item, number)


def stream_of(text: bytes, number: bytes = b"1") -> list[bytes]:
    delta = b'{"type":"response.output_text.delta","output_index":0,"content_index":0,"item_id":"msg_1","delta":"%b"}'
    whole = b'{"type":"response.completed","response":%b}' % response_with(text, number)
    return [CREATED, OUTPUT[0], b"data: %b\n\n" % (delta % text), b"data: %b\n\n" % whole]


@pytest.mark.parametrize("odd", ODD)
async def test_a_text_that_the_fast_parser_refuses_is_served_in_every_mode(odd: str, store_url: str) -> None:
    written, text = ODD[odd]

    async def odd_one(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read() or b"{}")
        reply = streaming(*stream_of(written)) if asked.get("stream") else plain(200, response_with(written))
        return await reply(request)

    async with (
        running_script(odd_one) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        cached = await ended(http, await create(pollux, "hi", stream=True))
        assert (cached["status"], cached["output"][0]["content"][0]["text"]) == ("completed", text)
        events = await read_stream(await http.get(f"responses/{cached['id']}?stream=true"))
        assert [one["delta"] for one in events if "delta" in one] == [text]
        for body in ({"model": CACHED}, {"model": NATIVE, "background": True}):
            raw = await (await http.post("responses", json={"input": "x", **body})).read()
            assert RAW.encode() not in raw
            assert json.loads(raw)["output"][0]["content"][0]["text"] == text
        raw = await (await http.post("responses", json={"model": CACHED, "input": "x", "stream": True})).read()
        assert RAW.encode() not in raw
        assert b"response.completed" in raw


@pytest.mark.parametrize("number", ODD_NUMBERS)
async def test_a_number_beyond_all_stays_as_it_was_written(number: bytes, store_url: str) -> None:
    handler = answering([streaming(*stream_of(b"x", number)), plain(200, response_with(b"x", number))])
    tool = {"type": "function", "name": "f", "parameters": {"maximum": "NUMBER"}}
    body = json.dumps({"model": CACHED, "input": "x", "tools": [tool], "background": True})
    raw = body.encode().replace(b'"NUMBER"', number)
    async with (
        running_script(handler) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        created = await (await http.post("responses", data=raw)).read()
        assert b'"maximum":%b' % number in created
        response = await ended(http, json.loads(created)["id"])
        assert (response["status"], response["odd"]) == ("completed", ODD_NUMBERS[number])
        assert b'"maximum":%b' % number in upstream.requests[0].body
        proxied = await (await http.post("responses", data=raw.replace(b"true", b"false"))).read()
        assert b'"odd":%b' % number in proxied
        assert RAW.encode() not in proxied
        assert b'"maximum":%b' % number in upstream.requests[1].body


@pytest.mark.parametrize("label", ["application/json", "text/plain", "application/octet-stream", None])
async def test_a_stream_under_a_wrong_label_is_a_stream(label: str | None, store_url: str) -> None:
    async with (
        running_script(answering([streaming(*WELL, label=label)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        assert (await ended(http, await create(pollux, "hi")))["status"] == "completed"
        answer = await http.post("responses", json={"model": CACHED, "input": "x", "stream": True})
        events = await read_stream(answer)
        assert events[-1]["type"] == "response.completed"
        assert RAW not in json.dumps(events)


async def test_a_json_answer_under_a_wrong_label_gets_the_right_one(store_url: str) -> None:
    async with (
        running_script(answering([plain(200, response_with(b"x"), label="text/plain")])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.client() as sdk,
    ):
        assert (await sdk.responses.create(model=CACHED, input="x")).output_text == "x"


async def test_keepalives_do_not_reach_clients_of_proxied_streams(store_url: str) -> None:
    async with (
        running_script(answering([streaming(KEEPALIVE, CREATED, KEEPALIVE, *OUTPUT, COMPLETED)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        events = await read_stream(await http.post("responses", json={"model": CACHED, "input": "x", "stream": True}))
        assert [one["type"] for one in events][:2] == ["response.created", "response.output_item.added"]
        assert "keepalive" not in [one["type"] for one in events]


REFUSING: dict[str, Any] = {
    "an error event": streaming(failed(code="rate_limit_exceeded", message="Full.")),
    "JSON with an error": plain(200, {"error": {"code": "rate_limit_exceeded", "message": "Full."}}),
    "429": plain(429, {"error": {"code": "rate_limit_exceeded", "message": "Full."}}),
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("refusal", REFUSING)
async def test_a_refusal_in_a_providers_first_words_sends_a_proxied_request_elsewhere(
    refusal: str, streamed: bool, store_url: str
) -> None:
    if refusal == "an error event" and not streamed:
        pytest.skip("there are no events")
    well = streaming(*WELL) if streamed else plain(200, response_with(b"x"))
    async with (
        running_script(answering([REFUSING[refusal]], then=well)) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        answer = await http.post("responses", json={"model": CACHED, "input": "x", "stream": streamed})
        assert answer.status == 200
        assert b"completed" in await answer.read()
        assert len(upstream.requests) == 2


async def test_a_refusal_that_stays_has_the_status_that_it_means(store_url: str) -> None:
    async with (
        running_script(answering([REFUSING["JSON with an error"]])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        answer = await http.post("responses", json={"model": CACHED, "input": "x"})
        assert answer.status == 429
        error = (await answer.json())["error"]
        assert (error["code"], error["message"]) == ("rate_limit_exceeded", "Full.")
