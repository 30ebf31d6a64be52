"""Whatever a client sends: a clear error of the right status in the contract's shape, never a 5xx, and it goes on.

One replica takes it all. That it goes on, and has nothing to say at the level ERROR, is checked after each test by the
fixture `alice`.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest
import pytest_asyncio
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from server.logs import formatter
from server.protocol.ids import CompositeId, encode_composite
from tests.conftest import plain_url
from tests.support.generated import json_values, moderate
from tests.support.obliging import obliging
from tests.support.refusals import checked, exchange, refusal
from tests.support.replica import ALICE, CACHED, MASTER_KEY, NATIVE, Replica, create, make_config, running_replica
from tests.support.upstreams import Upstream, running_script
from tests.support.waiting import wait_until

INVALID = "invalid_request_error"
MODES: dict[str, dict[str, Any]] = {
    "proxied": {"model": CACHED},
    "native": {"model": NATIVE, "background": True},
    "cached": {"model": CACHED, "background": True},
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Upstream]:
    async with running_script(obliging()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pollux(provider: Upstream, store_server: str) -> AsyncIterator[Replica]:
    with redis.Redis.from_url(plain_url(store_server)) as admin:
        admin.flushdb()
    async with running_replica(make_config(provider.base_url), store_server) as replica:
        yield replica


@pytest.fixture
def upstream(provider: Upstream) -> Upstream:
    """The provider, as if nobody had asked it anything yet."""
    provider.requests.clear()
    return provider


@pytest_asyncio.fixture(loop_scope="module")
async def alice(
    pollux: Replica, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[aiohttp.ClientSession]:
    async with pollux.http() as http:
        yield http
        response_id = await create(pollux, "a normal request")
        answer = await http.get(f"responses/{response_id}?wait=20")
        assert (await answer.json())["status"] == "completed"
        await wait_until(lambda: _is_idle(pollux), what="all runs have ended")
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


def _is_idle(pollux: Replica) -> bool:
    assert pollux.context is not None
    return pollux.context.worker.active == 0


def at(http: aiohttp.ClientSession, path: str) -> URL:
    """A path below /v1/ that is sent as it is, with its escapes."""
    return URL(f"{http._base_url}{path}", encoded=True)


# Bodies.


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


NO_OBJECTS = {
    "empty": b"",
    "white space": b" \r\n\t ",
    "an array": b'[{"model": "gpt-5.2"}]',
    "a string": b'"gpt-5.2"',
    "a number": b"5",
    "null": b"null",
    "cut off": b'{"model": "gpt-5.2", "inp',
    "two values": b"{}{}",
    "single quotes": b"{'model': 'gpt-5.2'}",
    "trailing comma": b'{"model": "gpt-5.2",}',
    "a comment": b'{"model": "gpt-5.2"} // please',
    "invalid UTF-8": b'{"model": "gpt-5.2", "input": "\xff\xfe"}',
    "an overlong UTF-8 sequence": b'{"model": "gpt-5.2", "input": "\xc0\xaf"}',
    "UTF-16": '{"model": "gpt-5.2", "input": "x"}'.encode("utf-16"),
    "a control character": b'{"model": "gpt-5.2", "input": "\x00"}',
    "NaN": b'{"model": "gpt-5.2", "input": "x", "temperature": NaN}',
    "Infinity": b'{"model": "gpt-5.2", "input": "x", "temperature": -Infinity}',
    "nesting 100,000 deep": nested(100_000),
    "objects 100,000 deep": b'{"a":' * 100_000,
    "form data": b"model=gpt-5.2&input=x",
}


@pytest.mark.parametrize("name", NO_OBJECTS)
async def test_a_body_that_is_no_json_object_is_refused(name: str, alice: aiohttp.ClientSession) -> None:
    answer = await refusal(await alice.post("responses", data=NO_OBJECTS[name]))
    assert answer.fields == (400, INVALID, "invalid_json", None)


@pytest.mark.parametrize("depth", [240, 255, 500, 1000, 100_000])
@pytest.mark.parametrize("mode", MODES)
async def test_a_body_nested_too_deeply_to_be_forwarded_is_refused(
    mode: str, depth: int, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    head = orjson.dumps(MODES[mode])[:-1]
    for body in (
        head + b', "input": "x", "metadata": {"a": ' + nested(depth) + b"}}",
        head + b', "input": [{"role": "user", "content": ' + nested(depth) + b"}]}",
    ):
        answer = await refusal(await alice.post("responses", data=body))
        assert answer.fields == (400, INVALID, "invalid_json", None)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ["gpt-5.2"]}, "model"),
        ({"background": "true"}, "background"),
        ({"background": 1}, "background"),
        ({"stream": "yes"}, "stream"),
        ({"stream": {}}, "stream"),
        ({"store": 0}, "store"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"previous_response_id": ["x"]}, "previous_response_id"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
async def test_a_field_of_the_wrong_type_is_named_in_every_mode(
    mode: str, fields: dict[str, Any], param: str, alice: aiohttp.ClientSession
) -> None:
    answer = await refusal(await alice.post("responses", json={**MODES[mode], "input": "x", **fields}))
    assert answer.fields == (400, INVALID, "invalid_type", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": [{"role": "user", "content": "x"}, "x"]}, "input[1]"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"input": [{"id": {}}]}, "input[0].id"),
        ({"metadata": "x"}, "metadata"),
        ({"text": []}, "text"),
        ({"reasoning": "high"}, "reasoning"),
        ({"tools": {}}, "tools"),
        ({"include": "all"}, "include"),
    ],
)
async def test_a_field_that_a_cached_response_echoes_or_lists_is_checked_too(
    fields: dict[str, Any], param: str, alice: aiohttp.ClientSession
) -> None:
    answer = await refusal(await alice.post("responses", json={**MODES["cached"], "input": "x", **fields}))
    assert answer.fields == (400, INVALID, "invalid_type", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"background": None, "stream": None, "store": None, "previous_response_id": None, "metadata": None},
        {"input": None, "tools": None, "text": None, "reasoning": None, "include": None},
        {"input": [], "tools": [], "text": {}, "reasoning": {}, "metadata": {}},
        {"tools": [5, None, [], {"type": 5}, {"type": "function"}], "tool_choice": 5},
        {"text": {"format": 5}, "reasoning": {"effort": {}}},
        {"text": {"format": None, "verbosity": None}},
        {"instructions": [1], "temperature": "hot", "top_p": [], "metadata": {"a": {"b": [None]}}},
        {"input": [{"role": 5, "content": 5}, {"role": "user"}, {}], "stream_options": 5},
        {"input": "\x00\u2028\U0001f600", "user": "\x00", "metadata": {"\x00": "\r\n\r\n"}},
        {"metadata": {"a": 2**64, "b": -(2**63), "c": 1e308}},
        {"unknown": {"to": "us"}, "": "", "id": "x", "object": [], "status": "completed", "created_at": "never"},
    ],
)
@pytest.mark.undescribed("odd fields are shown as they were sent")
@pytest.mark.parametrize("mode", MODES)
async def test_what_is_odd_but_not_ours_to_refuse_is_left_to_the_provider(
    mode: str, fields: dict[str, Any], alice: aiohttp.ClientSession
) -> None:
    given = {name: value for name, value in fields.items() if name != "background" or mode == "proxied"}
    answer = await alice.post("responses", json={"input": "x", **given, **MODES[mode]})
    assert answer.status == 200, await answer.text()
    response_id = (await answer.json())["id"]
    for path in ("?wait=20", "/input_items"):
        read = await alice.get(f"responses/{response_id}{path}")
        assert read.status == 200, await read.text()


async def in_pieces(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 1 << 20):
        yield raw[start : start + (1 << 20)]


@pytest.fixture(scope="module")
def seventy_megabytes() -> bytes:
    return orjson.dumps({**MODES["cached"], "input": "x" * 70_000_000})


@pytest.mark.parametrize("way", ["with a length", "in chunks", "as a bomb"])
async def test_a_body_of_seventy_megabytes_is_refused_however_it_comes(
    way: str, alice: aiohttp.ClientSession, seventy_megabytes: bytes
) -> None:
    body: Any = io.BytesIO(seventy_megabytes)
    headers = {}
    if way == "in chunks":
        body = in_pieces(seventy_megabytes)
    elif way == "as a bomb":
        body, headers = await asyncio.to_thread(gzip.compress, seventy_megabytes, 1), {"Content-Encoding": "gzip"}
        assert len(body) < 1_000_000
    answer = await refusal(await alice.post("responses", data=body, headers=headers))
    assert answer.fields == (413, INVALID, "request_too_large", None)
    assert answer.message == "The request body is larger than the limit of 52428800 bytes."


@pytest.mark.parametrize("mode", MODES)
async def test_a_large_body_within_the_limit_reaches_the_provider_whole(
    mode: str, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    text = "0123456789" * 600_000
    answer = await alice.post("responses", data=io.BytesIO(orjson.dumps({**MODES[mode], "input": text})))
    assert answer.status == 200
    assert (await alice.get(f"responses/{(await answer.json())['id']}?wait=20")).status == 200
    assert upstream.requests[0].json["input"] == text


async def test_a_compressed_body_is_understood(alice: aiohttp.ClientSession) -> None:
    body = gzip.compress(orjson.dumps({**MODES["cached"], "input": "x"}))
    assert (await alice.post("responses", data=body, headers={"Content-Encoding": "gzip"})).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "body", [b"{}", b"\x1f\x8b\x08\x00garbage", gzip.compress(b"x" * 5000, mtime=0)[:-20], b"\xff" * 100]
)
async def test_a_body_that_is_not_encoded_as_it_says_is_refused(
    body: bytes, encoding: str, alice: aiohttp.ClientSession
) -> None:
    answer = await refusal(await alice.post("responses", data=body, headers={"Content-Encoding": encoding}))
    assert answer.fields == (400, INVALID, "invalid_json", None)


# Bytes that are no HTTP.

KEY = f"Authorization: Bearer {ALICE}\r\n".encode()
SECOND = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n"
"""A request that hides behind another one."""


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"HELLO\r\n\r\n", id="no request line"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="TLS"),
        pytest.param(b"GET /v1/responses/\xff HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n", id="path not ASCII"),
        pytest.param(b"GET /v1/models HTTP/9.9\r\nHost: x\r\n" + KEY + b"\r\n", id="unknown version"),
        pytest.param(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + KEY + b"no colon\r\n\r\n", id="header without colon"),
        pytest.param(b"GET /v1/models HTTP/1.1\r\nX: \x00\r\n" + KEY + b"\r\n", id="NUL in a header"),
        pytest.param(b"POST /v1/responses HTTP/1.1\r\n" + KEY + b"Content-Length: -5\r\n\r\n", id="negative length"),
        pytest.param(
            b"POST /v1/responses HTTP/1.1\r\n" + KEY + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            id="two lengths",
        ),
        pytest.param(
            b"POST /v1/responses HTTP/1.1\r\n" + KEY + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad chunk"
        ),
        # What two servers in a row could understand differently, and so take for two requests.
        *(
            pytest.param(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\n" + KEY + rest + SECOND, id=name)
            for name, rest in {
                "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "two equal lengths in one": b"Content-Length: 2, 2\r\n\r\n{}",
                "a length with a sign": b"Content-Length: +2\r\n\r\n{}",
                "a length in hex": b"Content-Length: 0x2\r\n\r\n{}",
                "chunks that are not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
                "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "chunks with a tab": b"Transfer-Encoding:\tchunked,\tx\r\n\r\n0\r\n\r\n",
                "a space before the colon": b"Content-Length : 2\r\n\r\n{}",
                "a folded header": b"X: a\r\n Content-Length: 2\r\n\r\n{}",
                "a bare CR": b"X: a\rContent-Length: 2\r\n\r\n{}",
                "a chunk that is longer than it says": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
                "a chunk size with a sign": b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
            }.items()
        ),
    ],
)
async def test_what_is_no_http_is_refused_in_the_same_shape_and_not_logged_with_its_key(
    request_bytes: bytes, pollux: Replica, alice: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = checked(*await exchange(pollux.url, request_bytes))
    assert answer.fields[:2] == (400, INVALID)
    assert answer.code in ("malformed_http", "invalid_json")
    assert ALICE not in caplog.text
    assert "Authorization" not in caplog.text


# Ids.

HOSTILE_IDS = {
    "NUL": "litellm_poll_%00",
    "CR and LF": "a%0d%0aX-Evil:%20yes",
    "braces": "{id}",
    "escaped braces": "%7B0%7D%7Bid%7D",
    "a slash": "a%2Fb",
    "only a slash": "%2F",
    "dots": "..",
    "escaped dots": "%2e%2e",
    "a way out": "..%2f..%2fmodels",
    "4,000 characters": "x" * 4000,
    "a polling id and more": "litellm_poll_00000000-0000-4000-8000-000000000000x",
    "a polling id in capitals": "litellm_poll_ABCDEF00-0000-4000-8000-000000000000",
    "a polling id and a line end": "litellm_poll_00000000-0000-4000-8000-000000000000%0a",
    "the prefix of polling ids": "litellm_poll_",
    "the prefix of composite ids": "resp_",
    "padding": "resp_====",
    "base64 of nonsense": "resp_AAAA",
    "base64 of a composite id of 4,000 characters": "resp_" + "bGl0ZWxsbTpj" * 333,
    "not base64": "resp_!!!!",
    "unicode": "%E2%82%AC%F0%9F%98%80",
    "no UTF-8": "%ff%fe",
    "half an escape": "%",
    "no escape": "%zz",
    "a pattern for keys": "litellm_poll_*",
    "a key": "pollux:%7B0%7D:settings",
    "a URL": "http:%2F%2Fevil.example%2Fx",
    "a query": "x%3Fstream=true%23y",
    "a semicolon": "x;owner:master",
    "markup": "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
}


@pytest.mark.parametrize("name", HOSTILE_IDS)
async def test_a_hostile_id_is_not_found_whatever_is_done_with_it(
    name: str, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    path = f"responses/{HOSTILE_IDS[name]}"
    for method, tail in (
        ("GET", ""),
        ("GET", "?stream=true"),
        ("GET", "?wait=5"),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/input_items"),
    ):
        answer = await refusal(await alice.request(method, at(alice, path + tail)))
        assert answer.fields == (404, INVALID, None, None)
        assert answer.message.startswith("Response with id '")
        assert "X-Evil" not in answer.headers
    assert upstream.requests == []


@pytest.mark.parametrize("name", HOSTILE_IDS)
async def test_a_hostile_id_can_not_be_continued(name: str, alice: aiohttp.ClientSession, upstream: Upstream) -> None:
    given = URL(f"http://x/{HOSTILE_IDS[name]}", encoded=True).path[1:]
    for mode in MODES.values():
        body = {**mode, "input": "x", "previous_response_id": given}
        answer = await refusal(await alice.post("responses", json=body))
        assert answer.fields == (400, INVALID, "previous_response_not_found", "previous_response_id")
    assert upstream.requests == []


@pytest.mark.parametrize("name", HOSTILE_IDS)
async def test_a_hostile_name_of_a_model_is_not_found(name: str, alice: aiohttp.ClientSession) -> None:
    answer = await refusal(await alice.get(at(alice, f"models/{HOSTILE_IDS[name]}")))
    assert answer.fields == (404, INVALID, "model_not_found", "model")


@pytest.mark.parametrize("composite", ["no deployment", "no such deployment", "no provider", "a URL as deployment"])
async def test_a_composite_id_of_no_deployment_is_not_found(
    composite: str, pollux: Replica, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    made = {
        "no deployment": CompositeId("openai", "", "resp_1"),
        "no such deployment": CompositeId("openai", "f" * 64, "resp_1"),
        "no provider": CompositeId("", "None", "resp_1"),
        "a URL as deployment": CompositeId("openai", upstream.base_url, "resp_1"),
    }[composite]
    async with pollux.http(MASTER_KEY) as master:
        for http in (alice, master):
            answer = await refusal(await http.get(f"responses/{quote(encode_composite(made), safe='')}"))
            assert answer.fields == (404, INVALID, None, None)
            body = {"model": CACHED, "input": "x", "previous_response_id": encode_composite(made)}
            answer = await refusal(await http.post("responses", json=body))
            assert answer.status == 400
            assert answer.param == "previous_response_id"
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("response_id", "segment"),
    [
        ("http://evil.example/x", "http%3A%2F%2Fevil.example%2Fx"),
        ("//evil.example", "%2F%2Fevil.example"),
        ("../models", "..%2Fmodels"),
        ("..%2Fmodels", "..%252Fmodels"),
        ("x/cancel", "x%2Fcancel"),
        ("x?stream=true#y", "x%3Fstream%3Dtrue%23y"),
        ("x&a=b;c", "x%26a%3Db%3Bc"),
        ("{0}%s", "%7B0%7D%25s"),
        ("@evil.example", "%40evil.example"),
        ("...", "..."),
    ],
)
async def test_nothing_in_a_composite_id_leaves_its_segment_of_the_providers_url(
    response_id: str, segment: str, pollux: Replica, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    named = quote(await composite(pollux, response_id), safe="")
    async with pollux.http(MASTER_KEY) as master:
        assert (await master.get(at(master, f"responses/{named}"))).status == 200
        assert (await master.get(at(master, f"responses/{named}/input_items"))).status == 200
        assert (await master.post(at(master, f"responses/{named}/cancel"))).status == 200
        assert (await master.delete(at(master, f"responses/{named}"))).status == 200
    assert [seen.path_qs for seen in upstream.requests] == [
        f"/v1/responses/{segment}",
        f"/v1/responses/{segment}/input_items?limit=20&order=desc",
        f"/v1/responses/{segment}/cancel",
        f"/v1/responses/{segment}",
    ]
    upstream.requests.clear()
    # Without her tag it is nobody's for alice.
    assert (await refusal(await alice.get(at(alice, f"responses/{named}")))).status == 404
    assert upstream.requests == []


@pytest.mark.parametrize("response_id", [".", "..", "a b", "a\r\nX-Evil: yes", "\x00", "\x7f", "é", "", "a\tb"])
async def test_what_can_be_no_providers_id_is_not_even_asked_for(
    response_id: str, pollux: Replica, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    named = quote(await composite(pollux, response_id), safe="")
    async with pollux.http(MASTER_KEY) as master:
        assert (await refusal(await master.get(at(master, f"responses/{named}")))).status == 404
    assert upstream.requests == []


async def composite(pollux: Replica, response_id: str) -> str:
    """An id that leads to a real deployment, without a tag: good for the master."""
    assert pollux.context is not None
    [deployment] = pollux.context.deployments.serving(NATIVE)
    return encode_composite(CompositeId("openai", deployment.id, response_id))


# Methods and routes.


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "responses", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "responses", "GET, HEAD, OPTIONS, POST"),
        ("PATCH", "responses/x", "DELETE, GET, HEAD, OPTIONS"),
        ("POST", "responses/x", "DELETE, GET, HEAD, OPTIONS"),
        ("GET", "responses/x/cancel", "OPTIONS, POST"),
        ("POST", "responses/x/input_items", "GET, HEAD, OPTIONS"),
        ("POST", "models", "GET, HEAD, OPTIONS"),
        ("TRACE", "responses", "GET, HEAD, OPTIONS, POST"),
    ],
)
async def test_a_wrong_method_is_refused_with_those_that_are_right(
    method: str, path: str, allowed: str, alice: aiohttp.ClientSession
) -> None:
    answer = await refusal(await alice.request(method, path))
    assert answer.fields == (405, INVALID, "method_not_allowed", None)
    assert answer.message == f"{method} is not allowed here. Allowed are: {allowed}."
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    [
        *("", "responses//", "responses/x/y.z", "responses/x/cancel//", "/responses", "v1/responses"),
        *("nothing", "%00", "%0d%0aX-Evil:%20yes", "{}", "x" * 4000, "responses/x/%2e%2e"),
    ],
)
async def test_an_unknown_route_is_not_found_and_says_where_to_go(path: str, alice: aiohttp.ClientSession) -> None:
    for method in ("GET", "POST"):
        answer = await refusal(await alice.request(method, at(alice, path)))
        assert answer.fields == (404, INVALID, None, None)
        assert answer.message.endswith("The Responses API is served under /v1/responses.")


@pytest.mark.parametrize("path", ["responses/x/y", "responses/input_tokens/x", "responses/x/y/z/"])
async def test_an_operation_on_an_unknown_response_is_not_found(path: str, alice: aiohttp.ClientSession) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await refusal(await alice.request(method, at(alice, path)))
        assert answer.fields == (404, INVALID, None, None)
        assert answer.message == f"Response with id '{path.split('/')[1]}' not found."


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/openai/v1/chat/completions"])
async def test_who_asks_for_chat_completions_is_told_of_the_responses_api(
    path: str, pollux: Replica, alice: aiohttp.ClientSession
) -> None:
    answer = await refusal(await alice.post(f"{pollux.url}{path}", json={"model": CACHED, "messages": []}))
    assert answer.fields == (404, INVALID, None, None)
    assert answer.message == (
        f"There is no POST {path}. Pollux serves the Responses API: send the request to /v1/responses."
    )


# Query parameters.

BAD_QUERIES = [
    ("stream=maybe", "invalid_type", "stream"),
    ("stream=2", "invalid_type", "stream"),
    ("stream=%00", "invalid_type", "stream"),
    ("stream=true&starting_after=x", "invalid_type", "starting_after"),
    ("stream=true&starting_after=", "invalid_type", "starting_after"),
    ("stream=true&starting_after=1.5", "invalid_type", "starting_after"),
    ("stream=true&starting_after=1e3", "invalid_type", "starting_after"),
    ("stream=true&starting_after=%D9%A1", "invalid_type", "starting_after"),
    ("stream=true&starting_after=" + "9" * 400, "invalid_type", "starting_after"),
    ("stream=true&include_obfuscation=maybe", "invalid_type", "include_obfuscation"),
    ("wait=-1", "invalid_value", "wait"),
    ("wait=nan", "invalid_value", "wait"),
    ("wait=inf", "invalid_value", "wait"),
    ("wait=x", "invalid_value", "wait"),
    ("wait=1e999", "invalid_value", "wait"),
    ("wait=1_0", "invalid_value", "wait"),
    ("wait=", "invalid_value", "wait"),
]


@pytest.mark.parametrize(("query", "code", "param"), BAD_QUERIES)
async def test_a_bad_query_of_a_get_is_refused_in_cached_and_native_mode(
    query: str, code: str, param: str, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    for mode in ("cached", "native"):
        created = await alice.post("responses", json={**MODES[mode], "input": "x", "stream": True})
        response_id = orjson.loads((await created.text()).split("data: ")[1].split("\n")[0])["response"]["id"]
        upstream.requests.clear()
        answer = await refusal(await alice.get(at(alice, f"responses/{quote(response_id, safe='')}?{query}")))
        assert answer.fields == (400, INVALID, code, param)
        assert upstream.requests == [], "the provider is not bothered"


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "integer_below_min_value", "limit"),
        ("limit=-5", "integer_below_min_value", "limit"),
        ("limit=101", "integer_above_max_value", "limit"),
        ("limit=x", "invalid_type", "limit"),
        ("limit=", "invalid_type", "limit"),
        ("limit=1.0", "invalid_type", "limit"),
        ("limit=" + "9" * 500, "invalid_type", "limit"),
        ("order=up", "invalid_value", "order"),
        ("order=", "invalid_value", "order"),
        ("after=nothing", "invalid_value", "after"),
        ("after=%00", "invalid_value", "after"),
        ("after=%ff", "invalid_value", "after"),
        ("status=done", "invalid_value", "status"),
        ("status=%00", "invalid_value", "status"),
    ],
)
async def test_a_bad_query_of_a_list_is_refused(
    query: str, code: str, param: str, pollux: Replica, alice: aiohttp.ClientSession
) -> None:
    response_id = await create(pollux, "x")
    for path, parameters in (
        ("responses", ("limit", "after", "status")),
        (f"responses/{response_id}/input_items", ("limit", "order", "after")),
    ):
        if param in parameters:
            answer = await refusal(await alice.get(at(alice, f"{path}?{query}")))
            assert answer.fields == (400, INVALID, code, param)


@pytest.mark.parametrize("mode", MODES)
async def test_a_bad_wait_of_a_create_is_refused_before_anything_runs(
    mode: str, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    before = await (await alice.get("responses?limit=1")).read()
    answer = await refusal(await alice.post("responses?wait=soon", json={**MODES[mode], "input": "x"}))
    assert answer.fields == (400, INVALID, "invalid_value", "wait")
    assert upstream.requests == []
    assert await (await alice.get("responses?limit=1")).read() == before


async def test_queries_that_mean_nothing_to_us_are_passed_over(pollux: Replica, alice: aiohttp.ClientSession) -> None:
    response_id = await create(pollux, "x")
    for query in (
        "%ff=%ff",
        "a[]=b&a[]=c",
        "=",
        "&&&",
        "include=x&include[]=y",
        "stream=&stream=true",
        "x=" + "y" * 4000,
    ):
        assert (await alice.get(at(alice, f"responses/{response_id}?{query}"))).status == 200


# Headers.


@pytest.mark.parametrize("given", ["a", "req-1.2:3_4", "x" * 128, "0123456789abcdef"])
async def test_a_sane_request_id_is_kept(given: str, alice: aiohttp.ClientSession) -> None:
    for path, status in (("models", 200), ("responses/x", 404)):
        answer = await alice.get(path, headers={"X-Request-Id": given})
        assert (answer.status, answer.headers["X-Request-Id"]) == (status, given)


@pytest.mark.parametrize(
    "given", ["", " ", "a b", "x" * 129, "x" * 8000, "a,b", "é", "<script>", '"', "a\tb", "${jndi:ldap://x}", "%0d%0a"]
)
async def test_a_hostile_request_id_is_replaced(given: str, alice: aiohttp.ClientSession) -> None:
    for path, status in (("models", 200), ("responses/x", 404)):
        answer = await alice.get(path, headers={"X-Request-Id": given})
        assert answer.status == status
        assert answer.headers["X-Request-Id"].startswith("req_")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Prefer": "wait=nan, ,;=,wait"},
        {"Prefer": "wait=" + "9" * 8000},
        {"If-None-Match": "W/" * 4000},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=no-such"},
        {"Content-Type": ";;;==="},
        {"Accept": "application/xml;q=nan"},
        {"Accept-Encoding": "nonsense;q=x"},
        {"Cookie": "a=b; " * 1500},
        {"Traceparent": "x" * 8000},
        {"Expect": "100-continue"},
        {"Range": "bytes=5-1"},
        {"If-Modified-Since": "yesterday"},
        {"Host": "evil.example"},
        {"X-Forwarded-For": "::::"},
    ],
)
async def test_odd_headers_are_passed_over(
    headers: dict[str, str], mode: str, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    body = orjson.dumps({**MODES[mode], "input": "x"})
    answer = await alice.post("responses", data=body, headers=headers)
    assert answer.status == 200, await answer.text()
    assert (await alice.get(f"responses/{(await answer.json())['id']}", headers=headers)).status == 200


def raw_post(body: dict[str, Any], *lines: bytes) -> bytes:
    data = orjson.dumps({"input": "x", **body})
    head = [b"POST /v1/responses HTTP/1.1", b"Host: x", KEY.strip(), *lines, b"Content-Length: %d" % len(data)]
    return b"\r\n".join(head) + b"\r\n\r\n" + data


@pytest.mark.parametrize("mode", MODES)
async def test_of_duplicate_headers_the_first_counts(
    mode: str, pollux: Replica, alice: aiohttp.ClientSession, upstream: Upstream
) -> None:
    lines = (b"Authorization: Bearer wrong", b"Idempotency-Key: a", b"Idempotency-Key: b", b"X-Request-Id: one")
    status, headers, _ = await exchange(pollux.url, raw_post(MODES[mode], *lines, b"X-Request-Id: two"))
    assert (status, headers["X-Request-Id"]) == (200, "one")
    if mode != "cached":
        await exchange(pollux.url, raw_post(MODES[mode], b"Idempotency-Key: a"))
        assert len({request.headers["Idempotency-Key"] for request in upstream.requests}) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [b"X-Request-Id", b"Prefer", b"If-None-Match", b"traceparent", b"Cookie", b"api-key"])
async def test_headers_that_are_no_utf8_are_passed_over(
    name: bytes, mode: str, pollux: Replica, alice: aiohttp.ClientSession
) -> None:
    status, _, body = await exchange(pollux.url, raw_post(MODES[mode], name + b": wait=\xff\xfe"))
    assert status == 200, body


@pytest.mark.parametrize("key", [b"x" * 5000, b"\xff\xfe", b"a\tb", "\u2028".encode()])
async def test_an_idempotency_key_that_can_not_be_kept_is_refused(
    key: bytes, pollux: Replica, alice: aiohttp.ClientSession
) -> None:
    answer = checked(*await exchange(pollux.url, raw_post(MODES["cached"], b"Idempotency-Key: " + key)))
    assert answer.fields == (400, INVALID, "invalid_value", None)
    assert answer.message.startswith("The Idempotency-Key ")


# What is logged of it.


@pytest.mark.parametrize("form", ["console", "json"])
async def test_a_client_can_not_forge_a_line_of_the_log(
    form: str, provider: Upstream, store_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pollux")
    config = make_config(provider.base_url)
    config["model_list"][0]["model_name"] = "openai/*"
    body = {"model": "openai/x\n12:00:00 ERROR all is lost\x1b[2J" + "y" * 1000, "input": "x", "background": True}
    async with running_replica(config, store_server) as replica, replica.http() as http:
        answer = await http.post("responses", json=body, headers={"X-Request-Id": "a b"})
        await http.get(f"responses/{(await answer.json())['id']}?wait=20")
        await http.delete(f"responses/{(await answer.json())['id']}")
    rendered = formatter(form)
    lines = [rendered.format(record) for record in caplog.records]
    assert len([line for line in lines if "all is lost" in line]) >= 2
    for line in lines:
        assert line.isprintable()


# At random.

in_the_loop = settings(moderate, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
_names = st.sampled_from(
    [
        *("model", "input", "background", "stream", "store", "previous_response_id", "metadata", "tools", "text"),
        *("reasoning", "include", "instructions", "temperature", "tool_choice", "user", "status", "output", "error"),
    ]
)
_items = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "id", "role", "content", "status", "call_id", "x"]), json_values, max_size=5
    ),
    max_size=3,
)
_mutations = st.dictionaries(_names, json_values, max_size=4)


@settings(in_the_loop, max_examples=150)
@given(mutation=_mutations, items=st.none() | _items, mode=st.sampled_from(sorted(MODES)))
@pytest.mark.undescribed("odd fields are shown as they were sent, and passed on")
async def test_no_body_makes_it_break(
    mutation: dict[str, Any], items: list[Any] | None, mode: str, alice: aiohttp.ClientSession
) -> None:
    body = {"input": "x" if items is None else items, **MODES[mode], **mutation}
    answer = await alice.post("responses", json=body)
    if answer.status != 200:
        assert (await refusal(answer)).status in (400, 404)
        return
    text = await answer.text()
    if answer.content_type == "text/event-stream":
        text = next(line for line in text.split("\n") if '"response":{' in line).removeprefix("data: ")
    made = orjson.loads(text)
    response_id = quote(made.get("response", made)["id"], safe="")
    for path in (f"responses/{response_id}?wait=20", f"responses/{response_id}/input_items", "responses?limit=2"):
        read = await alice.get(at(alice, path))
        assert read.status == 200, await read.text()


_segments = st.text(min_size=1, max_size=40) | st.binary(min_size=1, max_size=40) | st.sampled_from(sorted(MODES))
_ways: st.SearchStrategy[Callable[[str], tuple[str, str]]] = st.sampled_from(
    [
        lambda segment: ("GET", f"responses/{segment}"),
        lambda segment: ("GET", f"responses/{segment}?stream=true&starting_after=0"),
        lambda segment: ("GET", f"responses/resp_{segment}"),
        lambda segment: ("GET", f"responses/litellm_poll_{segment}"),
        lambda segment: ("DELETE", f"responses/{segment}"),
        lambda segment: ("POST", f"responses/{segment}/cancel"),
        lambda segment: ("GET", f"responses/{segment}/input_items"),
        lambda segment: ("GET", f"responses/x?{segment}={segment}"),
        lambda segment: ("GET", f"responses/x/input_items?after={segment}"),
        lambda segment: ("GET", f"responses?after={segment}"),
        lambda segment: ("GET", f"models/{segment}"),
        lambda segment: ("POST", segment),
    ]
)


@settings(in_the_loop, max_examples=150)
@given(segment=_segments, way=_ways)
async def test_no_path_makes_it_break(
    segment: str | bytes, way: Callable[[str], tuple[str, str]], alice: aiohttp.ClientSession
) -> None:
    method, path = way(quote(segment, safe=""))
    answer = await refusal(await alice.request(method, at(alice, path)))
    assert answer.status in (400, 404, 405)


_parts = st.text(max_size=20) | st.sampled_from(["openai", "x", "a;model_id:b", ";owner:", ";owner:x"])


@settings(in_the_loop, max_examples=100)
@given(provider=_parts, deployment=st.none() | _parts, response_id=_parts, tag=st.none() | _parts)
async def test_no_composite_id_makes_it_break(
    provider: str,
    deployment: str | None,
    response_id: str,
    tag: str | None,
    pollux: Replica,
    alice: aiohttp.ClientSession,
) -> None:
    assert pollux.context is not None
    real = pollux.context.deployments.all[0].id
    made = encode_composite(CompositeId(provider, real if deployment is None else deployment, response_id, tag))
    async with pollux.http(MASTER_KEY) as master:
        for http in (alice, master):
            answer = await http.get(at(http, f"responses/{quote(made, safe='')}"))
            assert answer.status in (200, 404)
            assert answer.status == 404 or http is master
