"""LiteLLM on either side: as a client that unwraps ids, as an upstream that encrypts them anew, and moved away from."""

from __future__ import annotations

import os
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.support.obliging import obliging
from tests.support.refusals import refusal
from tests.support.replica import ALICE, CACHED, MASTER_KEY, NATIVE, Replica, make_config, running_replica
from tests.support.sse import read_stream
from tests.support.upstreams import RequestHandler, Upstream, running_script

RAW = "resp_0111a87191b9d385006979a7099fc48196bbf51990831752de"


def taken_for_litellms_own(response_id: str) -> bool:
    """What LiteLLM's decoder does with an id, wherever it gets one."""
    try:
        return ";" in b64decode(response_id.replace("resp_", "")).decode()
    except ValueError:
        return False


def each_use_of(response_id: str) -> list[tuple[str, str]]:
    path = f"responses/{quote(response_id, safe='')}"
    return [
        ("GET", path),
        ("GET", f"{path}?stream=true"),
        ("GET", f"{path}?wait=5"),
        ("POST", f"{path}/cancel"),
        ("GET", f"{path}/input_items"),
        ("DELETE", path),
    ]


async def read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    assert answer.status == 200, await answer.text()
    body: dict[str, Any] = await answer.json()
    return body


# LiteLLM as a client.


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_script(obliging()) as running:
        yield running


@pytest.mark.parametrize("model", [CACHED, NATIVE])
async def test_opaque_ids_are_left_alone_by_litellm_and_serve_everywhere(
    model: str, upstream: Upstream, store_url: str
) -> None:
    config = make_config(upstream.base_url, composite_ids="opaque")
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        body = {"model": model, "input": "x"}
        created = await read(await http.post("responses", json={**body, "background": model == NATIVE}))
        assert not taken_for_litellms_own(created["id"])
        raw = "resp_0123456789abcdef1"
        for method, path in each_use_of(created["id"]):
            upstream.requests.clear()
            answer = await http.request(method, path)
            assert answer.status == 200
            told = await answer.text()
            assert raw not in told
            assert created["id"] in told or path.endswith("/input_items")
            assert raw in upstream.requests[-1].path_qs
        continued = await read(await http.post("responses", json={**body, "previous_response_id": created["id"]}))
        assert continued["previous_response_id"] == created["id"]
        assert upstream.requests[-1].json["previous_response_id"] == raw


async def test_both_forms_are_read_whichever_is_written_and_keep_their_form(upstream: Upstream, store_url: str) -> None:
    made: dict[str, str] = {}
    for form in ("published", "opaque"):
        config = make_config(upstream.base_url, composite_ids=form)
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            made[form] = (await read(await http.post("responses", json={"model": CACHED, "input": "x"})))["id"]
            for known in made.values():
                assert (await read(await http.get(f"responses/{quote(known, safe='')}")))["id"] == known
    assert taken_for_litellms_own(made["published"])


async def test_without_a_setting_ids_are_written_as_litellm_publishes_them(upstream: Upstream, store_url: str) -> None:
    async with running_replica(make_config(upstream.base_url), store_url) as pollux, pollux.http() as http:
        created = await read(await http.post("responses", json={"model": CACHED, "input": "x"}))
        assert taken_for_litellms_own(created["id"])


# What a client is told whose ids are not ours.

ENCRYPTED = "resp_" + urlsafe_b64encode(os.urandom(180)).decode()


@pytest.mark.parametrize(
    ("response_id", "setting"),
    [
        (RAW, "pollux.composite_ids"),
        ("resp_0b3a4f0e-9c1d-4a57-8d3a-000000000000", "pollux.composite_ids"),
        (ENCRYPTED, "disable_responses_id_security"),
        (ENCRYPTED.rstrip("="), "disable_responses_id_security"),
        ("resp_v2:gcm:" + urlsafe_b64encode(os.urandom(180)).decode(), "disable_responses_id_security"),
    ],
)
@pytest.mark.parametrize("key", [ALICE, MASTER_KEY])
async def test_an_id_that_is_none_of_ours_is_404_and_says_which_setting_helps(
    response_id: str, setting: str, key: str, upstream: Upstream, store_url: str
) -> None:
    async with running_replica(make_config(upstream.base_url), store_url) as pollux, pollux.http(key) as http:
        for method, path in each_use_of(response_id):
            answer = await refusal(await http.request(method, path))
            assert answer.fields == (404, "invalid_request_error", None, None)
            assert answer.message.startswith("Response with id 'resp_")
            assert setting in answer.message
    assert upstream.requests == [], "the form alone tells: nobody hears whether there is such a response"


async def test_continuing_such_an_id_says_the_same(upstream: Upstream, store_url: str) -> None:
    async with running_replica(make_config(upstream.base_url), store_url) as pollux, pollux.http() as http:
        for response_id, setting in ((RAW, "composite_ids"), (ENCRYPTED, "disable_responses_id_security")):
            body = {"model": CACHED, "input": "x", "previous_response_id": response_id}
            answer = await refusal(await http.post("responses", json=body))
            assert answer.fields[:3] == (400, "invalid_request_error", "previous_response_not_found")
            assert setting in answer.message


# LiteLLM as an upstream.


class Encrypting:
    """An upstream that gives one and the same response another id in every answer, as LiteLLM with a master key."""

    def __init__(self) -> None:
        self.status = "queued"

    def new_id(self) -> str:
        return "resp_" + urlsafe_b64encode(os.urandom(120)).decode()

    def response(self, **fields: Any) -> dict[str, Any]:
        reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": self.new_id()}
        made = {"id": self.new_id(), "object": "response", "status": self.status, "output": [reasoning]}
        return {**made, "previous_response_id": self.new_id(), **fields}

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read() or b"{}")
        if request.method == "DELETE":
            return web.json_response({"id": self.new_id(), "object": "response", "deleted": True})
        if body.get("stream") or request.query.get("stream") == "true":
            return await self._stream(request)
        return web.json_response(self.response())

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for kind, status in (("created", "in_progress"), ("in_progress", "in_progress"), ("completed", "completed")):
            event = {"type": f"response.{kind}", "response": self.response(status=status, output=[])}
            await answer.write(b"event: response.%b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event)))
        return answer


@pytest.fixture
def litellm() -> Encrypting:
    return Encrypting()


@pytest.fixture
async def behind(litellm: RequestHandler, store_url: str) -> AsyncIterator[tuple[Replica, Upstream]]:
    async with (
        running_script(litellm) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as replica,
    ):
        yield replica, upstream


async def test_a_response_keeps_its_id_whatever_id_an_upstream_gives_it(behind: tuple[Replica, Upstream]) -> None:
    pollux, upstream = behind
    async with pollux.http() as http:
        created = await read(await http.post("responses", json={"model": NATIVE, "input": "x", "background": True}))
        path = f"responses/{quote(created['id'], safe='')}"
        for answer in (
            await http.get(path),
            await http.get(path),
            await http.post(f"{path}/cancel"),
            await http.delete(path),
        ):
            assert (await read(answer))["id"] == created["id"]
        events = await read_stream(await http.get(f"{path}?stream=true"))
        assert {event["response"]["id"] for event in events} == {created["id"]}
    assert len({request.path_qs.split("/")[3].split("?")[0] for request in upstream.requests[1:]}) == 1


@pytest.mark.parametrize("wait", ["", "?wait=1.2"])
async def test_what_it_continues_keeps_the_name_that_the_client_gave_it(
    wait: str, behind: tuple[Replica, Upstream]
) -> None:
    pollux, _ = behind
    async with pollux.http() as http:
        body = {"model": NATIVE, "input": "x", "background": True}
        first = await read(await http.post("responses", json=body))
        answer = await http.post(f"responses{wait}", json={**body, "previous_response_id": first["id"]})
        assert (await read(answer))["previous_response_id"] == first["id"]


@pytest.mark.parametrize("model", [CACHED, NATIVE])
async def test_all_events_of_a_proxied_stream_name_the_same_response(
    model: str, behind: tuple[Replica, Upstream]
) -> None:
    pollux, _ = behind
    async with pollux.http() as http:
        events = await read_stream(await http.post("responses", json={"model": model, "input": "x", "stream": True}))
    assert len(events) == 3
    assert len({event["response"]["id"] for event in events}) == 1


async def test_the_etag_says_whether_anything_has_changed_and_no_loop_runs_hot(
    behind: tuple[Replica, Upstream], litellm: Encrypting
) -> None:
    """The wait loop of the README: each state once, and between two of them one request to the provider a second."""
    pollux, upstream = behind
    async with pollux.http() as http:
        body = {"model": NATIVE, "input": "x", "background": True}
        created = await http.post("responses", json=body)
        path, known = f"responses/{quote((await read(created))['id'], safe='')}", created.headers["ETag"]
        began = time.monotonic()
        answer = await http.get(path, params={"wait": "2.4", "after": known.strip('"')})
        assert time.monotonic() - began > 2
        assert answer.headers["ETag"] == known
        assert len(upstream.requests) <= 4
        quiet = await http.get(path, headers={"If-None-Match": known})
        assert quiet.status == 304
        litellm.status = "completed"
        done = await http.get(path, params={"wait": "20", "after": known.strip('"')})
        assert (await read(done))["status"] == "completed"
        assert done.headers["ETag"] != known


# Ids of any length.


def naming(raw: str) -> RequestHandler:
    """An upstream whose responses all have this id."""

    async def play(request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read() or b"{}")
        response = {"id": raw, "object": "response", "status": "completed", "output": []}
        if body.get("stream") is True:
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await answer.prepare(request)
            await answer.write(b"data: %b\n\n" % orjson.dumps({"type": "response.created", "response": response}))
            await answer.write(b"data: %b\n\n" % orjson.dumps({"type": "response.completed", "response": response}))
            return answer
        return web.json_response(response)

    return play


@pytest.mark.parametrize("form", ["published", "opaque"])
@pytest.mark.parametrize("raw", ["r" * 1400, "r" * 5000, "odd?>~" * 100])
async def test_a_response_that_was_accepted_can_be_asked_for_however_long_or_odd_its_id(
    raw: str, form: str, store_url: str
) -> None:
    async with running_script(naming(raw)) as upstream:
        config = make_config(upstream.base_url, composite_ids=form)
        async with running_replica(config, store_url) as pollux, pollux.client() as sdk, pollux.http() as http:
            created = await sdk.responses.create(model=CACHED, input="x")
            assert (await sdk.responses.retrieve(created.id)).id == created.id
            # As it stands in the URL, with no escaping, and with everything around it that may stand there.
            path = f"responses/{created.id}"
            assert (await http.get(f"{path}?include_obfuscation=false&include[]=reasoning.encrypted_content")).ok
            assert (await http.get(f"{path}/input_items?limit=100&order=asc&after=msg_{'a' * 60}")).ok
            assert (await sdk.responses.create(model=CACHED, input="y", previous_response_id=created.id)).id
            assert upstream.requests[-1].json["previous_response_id"] == raw


@pytest.mark.parametrize("raw", ["r" * 6000, "not a word", "r\u00e9ponse_0123456789"])
async def test_a_response_that_nobody_could_ask_for_is_refused_when_it_is_made(raw: str, store_url: str) -> None:
    async with (
        running_script(naming(raw)) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        for body in ({"model": CACHED}, {"model": NATIVE, "background": True}):
            answer = await refusal(await http.post("responses", json={**body, "input": "x"}))
            assert answer.fields == (502, "server_error", "upstream_unavailable", None)
            assert "no URL can carry" in answer.message
        assert len(upstream.requests) == 2, "it has been made, and paid for: asking again would do so again"
        streamed = await http.post("responses", json={"model": CACHED, "input": "x", "stream": True})
        with pytest.raises(aiohttp.ClientPayloadError):
            await streamed.read()
        # A cached response has an id of its own.
        cached = await http.post("responses", json={"model": CACHED, "input": "x", "background": True})
        done = await read(await http.get(f"responses/{(await read(cached))['id']}?wait=20"))
        assert done["status"] == "completed"
