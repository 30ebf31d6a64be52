"""Every row of the README's table of errors, provoked over public HTTP; and what becomes of a provider's errors."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import redis
from aiohttp import web

from server.config import parse_config
from server.process.app import running
from server.process.assembly import drain
from server.system.sockets import bound
from tests.conftest import plain_url
from tests.support.authority import new_authority
from tests.support.pages import section
from tests.support.refusals import UPSTREAM_KEY, Refusal, checked, exchange, refusal
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    NATIVE,
    Replica,
    create,
    free_port,
    make_config,
    running_replica,
)
from tests.support.upstreams import RequestHandler, Upstream, running_script, seen_by
from tests.support.waiting import wait_until

RAW_ID = "resp_0111a87191b9d38500"
NOT_OURS = "resp_bGl0ZWxsbTpub25lIG9mIG91cnM="
POLLING_ID = "litellm_poll_00000000-0000-4000-8000-000000000000"
HANGS = "[[first_delay_ms=30000]]"
FAR_TOO_LONG = "x" * 70_000


# How the rows are provoked.


@dataclass(frozen=True)
class Stage:
    simulator: str
    store_url: str
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @asynccontextmanager
    async def pollux(self, upstream: str | None = None, **pollux: Any) -> AsyncIterator[Replica]:
        async with running_replica(impatient(upstream or self.simulator, **pollux), self.store_url) as replica:
            yield replica

    @asynccontextmanager
    async def alice(self, upstream: str | None = None, **pollux: Any) -> AsyncIterator[aiohttp.ClientSession]:
        async with self.pollux(upstream, **pollux) as replica, replica.http() as http:
            yield http


def impatient(upstream: str, *, timeout_s: float = 20, **pollux: Any) -> dict[str, Any]:
    """A config that tries nothing twice."""
    config = make_config(upstream, **pollux)
    config["litellm_settings"] |= {"num_retries": 0, "request_timeout": timeout_s}
    return config


@pytest.fixture
def stage(simulator: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(simulator, store_url, tmp_path, monkeypatch)


def background(text: str = "x", model: str = CACHED, **body: Any) -> dict[str, Any]:
    return {"model": model, "input": text, "background": True, **body}


async def post(http: aiohttp.ClientSession, body: Any, **options: Any) -> Refusal:
    return await refusal(await http.post("responses", json=body, **options))


async def ended(http: aiohttp.ClientSession, response_id: str) -> str:
    """Wait for the end of a response; gives its id again."""
    answer = await http.get(f"responses/{response_id}?wait=20")
    assert (await answer.json())["status"] not in ("queued", "in_progress")
    return response_id


async def no_key(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http(key=None) as http:
        yield await post(http, background())
        yield await refusal(await http.get("nothing/is/here"))


async def wrong_key(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http(key="sk-not-one-of-yours-3f2a") as http:
        yield await post(http, background())
        yield await refusal(await http.get(f"responses/{POLLING_ID}"))


async def key_not_configured(stage: Stage) -> AsyncIterator[Refusal]:
    config = impatient(stage.simulator, accept_any_key=True)
    async with running_replica(config, stage.store_url) as pollux, pollux.http(key="sk-not-one-of-yours-3f2a") as http:
        for body in ALL_WAYS:
            yield await post(http, body)
        yield await refusal(await http.post("webhook_endpoints", json={}))


async def not_http(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await refusal(await http.request("NONSENSE", "responses"))


async def head_too_large(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await refusal(await http.get("models", headers={"X-Long": "x" * 9000}))
        yield await refusal(await http.get("models", headers=[("X-Many", "x")] * 200))


async def path_too_long(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await refusal(await http.get("responses/" + FAR_TOO_LONG))


async def too_slow(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux(header_timeout_s=0.1, body_timeout_s=0.1) as pollux:
        head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n"
        for part in (head, f"{head}Content-Length: 5\r\n\r\n{{"):
            yield checked(*await exchange(pollux.url, part.encode()))


async def too_many_open(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice(max_open_per_key=1) as http:
        response_id = (await (await http.post("responses", json=background(HANGS))).json())["id"]
        waiting = asyncio.create_task(http.get(f"responses/{response_id}?wait=20"))
        try:
            yield await eventually_refused(http)
        finally:
            assert (await http.post(f"responses/{response_id}/cancel")).status == 200, "it ends what is open"
            assert (await waiting).status == 200


async def eventually_refused(http: aiohttp.ClientSession) -> Refusal:
    while (answer := await http.get("models")).status == 200:
        await answer.read()
    return await refusal(answer)


async def too_many_of_an_address(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux(max_connections_per_address=1) as pollux, pollux.http() as http, pollux.http() as other:
        assert (await http.get("models")).status == 200
        yield await refusal(await other.get("models"))


async def no_object(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        for data in (b"", b"{", b"[]", b'"x"', b"null", b'{"model": NaN}', b'{"model": "\xff"}'):
            yield await refusal(await http.post("responses", data=data))


async def unknown_encoding(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        answer = await http.post("responses", data=b"x", headers={"Content-Encoding": "br"})
        assert answer.headers["Accept-Encoding"] == "gzip, deflate, zstd"
        yield await refusal(answer)


async def expecting(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await refusal(await http.post("responses", data=b"{}", headers={"Expect": "a miracle"}))


async def websocket(stage: Stage) -> AsyncIterator[Refusal]:
    handshake = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    async with stage.pollux() as pollux:
        for key, path in ((ALICE, "responses"), (None, "responses"), (ALICE, "/openai/v1/responses"), (None, "/")):
            async with pollux.http(key=key) as http:
                url = pollux.url + path if path.startswith("/") else path
                answer = await http.get(url, headers={**handshake, "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw=="})
                assert answer.headers["Upgrade"] == "HTTP/1.1"
                yield await refusal(answer)


async def wrong_type(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await post(http, {"model": CACHED, "input": "x", "background": "true"})


async def bad_value(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        response_id = (await (await http.post("responses", json=background())).json())["id"]
        yield await refusal(await http.get(f"responses/{response_id}/input_items?order=up"))


async def no_model(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        for body in ({}, {"input": "x"}, {"model": None}, {"model": ""}):
            yield await post(http, body)


async def unknown_model(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await post(http, background(model="x"))
        yield await refusal(await http.get("models/x"))


async def no_such_response(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http() as http:
        hers = await create(pollux, "x")
        deleted = await create(pollux, "x")
        assert (await http.delete(f"responses/{deleted}")).status == 200
        expired = await ended(http, await create(pollux, "x"))
        with redis.Redis.from_url(plain_url(stage.store_url)) as admin:
            assert admin.pexpire(f"pollux:{{0}}:record:{expired}", 1)
        await wait_until(lambda: _is_gone(http, expired), what="it has expired")
        async with pollux.http(BOB) as bob:
            for path in each_use_of(hers):
                yield await refusal(await bob.request(*path))
        for response_id in (POLLING_ID, deleted, expired, NOT_OURS, "resp_!", "x"):
            for path in each_use_of(response_id):
                yield await refusal(await http.request(*path))


async def raw_id(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        for path in each_use_of(RAW_ID):
            yield await refusal(await http.request(*path))


async def encrypted_id(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        for path in each_use_of("resp_" + urlsafe_b64encode(os.urandom(180)).decode()):
            yield await refusal(await http.request(*path))


async def _is_gone(http: aiohttp.ClientSession, response_id: str) -> bool:
    return (await http.get(f"responses/{response_id}")).status == 404


def each_use_of(response_id: str) -> list[tuple[str, str]]:
    path = f"responses/{response_id}"
    return [
        ("GET", path),
        ("GET", f"{path}?stream=true"),
        ("GET", f"{path}?wait=5"),
        ("POST", f"{path}/cancel"),
        ("DELETE", path),
        ("GET", f"{path}/input_items"),
    ]


async def unfinished_previous(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http() as http:
        running = await create(pollux, HANGS)
        yield await post(http, background(previous_response_id=running))
        yield await post(http, {"model": CACHED, "input": "x", "previous_response_id": running})


async def unknown_previous(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http() as http, pollux.http(BOB) as bob:
        hers = await ended(http, await create(pollux, "x"))
        for unknown in (POLLING_ID, "resp_!", NOT_OURS, RAW_ID, "x"):
            yield await post(http, background(previous_response_id=unknown))
        yield await post(bob, background(previous_response_id=hers))
        yield await post(bob, {"model": CACHED, "input": "x", "previous_response_id": hers})


async def cancel_synchronous(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        answer = await http.post("responses", json={"model": CACHED, "input": "x"})
        response_id = (await answer.json())["id"]
        yield await refusal(await http.post(f"responses/{response_id}/cancel"))


async def cancel_too_late(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http() as http:
        for text in ("x", "[[fail=1]]", "[[incomplete=1]]"):
            response_id = await ended(http, await create(pollux, text))
            yield await refusal(await http.post(f"responses/{response_id}/cancel"))


async def never_streamed(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http() as http:
        response_id = await create(pollux, "x")
        yield await refusal(await http.get(f"responses/{response_id}?stream=true"))
        native = await create(pollux, "x", NATIVE)
        yield await refusal(await http.get(f"responses/{native}?stream=true"))


async def page_too_large(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await refusal(await http.get("responses?limit=101"))
        yield await refusal(await http.get(f"responses/{POLLING_ID}/input_items?limit=1000000"))


async def page_too_small(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        yield await refusal(await http.get("responses?limit=0"))
        yield await refusal(await http.get(f"responses/{POLLING_ID}/input_items?limit=-1"))


async def too_large(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice(max_body_bytes=65536) as http:
        yield await post(http, background(FAR_TOO_LONG))


async def key_reused(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        headers = {"Idempotency-Key": "one"}
        assert (await http.post("responses", json=background("x"), headers=headers)).status == 200
        yield await post(http, background("y"), headers=headers)


async def too_many_in_flight(stage: Stage) -> AsyncIterator[Refusal]:
    keys = [{"name": "alice", "key": ALICE, "max_in_flight": 1}]
    async with stage.alice(keys=keys) as alice:
        assert (await alice.post("responses", json=background("[[first_delay_ms=30000]]"))).status == 200
        yield await post(alice, background())


async def too_many_a_minute(stage: Stage) -> AsyncIterator[Refusal]:
    keys = [{"name": "alice", "key": ALICE, "requests_per_minute": 1}]
    async with stage.alice(keys=keys) as alice:
        assert (await alice.post("responses", json=background())).status == 200
        yield await post(alice, background())


async def overloaded(stage: Stage) -> AsyncIterator[Refusal]:
    stage.monkeypatch.setattr("server.admission.ALWAYS_ADMITTED", 5)
    stage.monkeypatch.setattr("server.admission.LONGEST_TURN_S", 0.5)
    async with stage.pollux() as pollux, pollux.http() as http:
        assert pollux.context is not None
        held = [pollux.context.admission.turn() for _ in range(8)]
        for turn in held:
            await turn.__aenter__()
        await asyncio.sleep(1.1)  # the rate is taken over a second at least
        yield await post(http, background())
        for turn in held:
            await turn.__aexit__(None, None, None)
        assert (await http.post("responses", json=background())).status == 200


async def too_many_queued(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice(max_queued=1, worker_concurrency=0) as alice:
        assert (await alice.post("responses", json=background())).status == 200
        yield await post(alice, background())


async def deployments_full(stage: Stage) -> AsyncIterator[Refusal]:
    stage.monkeypatch.setattr("server.api.relay.PLACE_PATIENCE_S", 0.1)
    config = make_config(stage.simulator)
    config["model_list"][0]["litellm_params"]["max_parallel_requests"] = 1
    async with running_replica(config, stage.store_url) as pollux, pollux.http() as alice:
        slow = asyncio.create_task(post_any(alice, {"model": CACHED, "input": "[[first_delay_ms=30000]]"}))
        await wait_until(lambda: _is_asked(alice, stage.simulator), what="the only place is taken")
        yield await post(alice, {"model": CACHED, "input": "x"})
        slow.cancel()


async def post_any(http: aiohttp.ClientSession, body: Any) -> aiohttp.ClientResponse:
    return await http.post("responses", json=body)


async def _is_asked(http: aiohttp.ClientSession, simulator: str) -> bool:
    seen = await seen_by(simulator)
    return bool(seen["count"])


async def wrong_method(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        answer = await refusal(await http.put("responses"))
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
        yield answer
        yield await refusal(await http.get(f"responses/{POLLING_ID}/cancel"))


async def no_route(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice() as http:
        hinted = await refusal(await http.post("chat/completions", json={}))
        assert "Responses API: send the request to /v1/responses" in hinted.message
        yield hinted
        yield await refusal(await http.get("responses/a/b.c"))
        yield await refusal(await http.get("nothing"))


async def no_store(stage: Stage) -> AsyncIterator[Refusal]:
    stage.monkeypatch.setattr("storage.connection.ANSWER_TIMEOUT_S", 0.3)
    own = f"embedded://{stage.folder / 'store'}"
    async with running_replica(impatient(stage.simulator), own) as pollux, pollux.http() as http:
        response_id = await ended(http, await create(pollux, "x"))
        with redis.Redis.from_url(plain_url(own)) as admin:
            pid = int(admin.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            yield await post(http, background())
            for path in each_use_of(response_id):
                if "wait" not in path[1]:  # a wait holds on
                    yield await refusal(await http.request(*path))
            yield await refusal(await http.get("responses"))
            yield await refusal(await http.get(f"{pollux.url}/readyz"))
            assert time.monotonic() - began < 8 * 0.8, "each is answered soon after its deadline"
        finally:
            os.kill(pid, signal.SIGCONT)


async def starting(stage: Stage) -> AsyncIterator[Refusal]:
    config = impatient(stage.simulator, store=f"redis://127.0.0.1:{free_port()}")
    with bound("127.0.0.1", 0) as sockets:
        start = asyncio.create_task(_run(config, sockets))
        await wait_until(lambda: sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), what="it listens")
        async with _at(sockets) as http:
            yield await post(http, background())
            for path in each_use_of(POLLING_ID):
                yield await refusal(await http.request(*path))
            yield await refusal(await http.get("/readyz"))
            assert (await http.get("/livez")).status == 200
        start.cancel()
        await asyncio.wait([start])


async def _run(config: dict[str, Any], sockets: list[socket.socket]) -> None:
    async with running(parse_config(config, environ={}), sockets):
        raise AssertionError("it has no store")


def _at(sockets: list[socket.socket]) -> aiohttp.ClientSession:
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/v1/"
    return aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {ALICE}"})


async def no_certificate(stage: Stage) -> AsyncIterator[Refusal]:
    files = new_authority(stage.folder)
    tls = {"cert_file": str(files.cert), "key_file": str(files.key), "client_ca_file": str(files.authority)}
    async with stage.pollux(tls=tls) as pollux:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(files.authority)))
        async with aiohttp.ClientSession(connector=connector) as http:
            address = pollux.url.replace("http://", "https://")
            yield await refusal(await http.get(f"{address}/v1/models"))
            assert (await http.get(f"{address}/livez")).status == 200, "probes have none"


async def no_room(stage: Stage) -> AsyncIterator[Refusal]:
    config = parse_config(impatient(stage.simulator, store=stage.store_url), environ={})
    with bound("127.0.0.1", 0) as sockets:
        async with running(config, sockets, most_clients=0), _at(sockets) as http:
            yield await post(http, background())
            yield await refusal(await http.get("responses"))


async def draining(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.pollux() as pollux, pollux.http() as http:
        assert pollux.context is not None
        await drain(pollux.context, patience_s=0)
        yield await post(http, background())
        yield await post(http, background(model=NATIVE))
        yield await refusal(await http.get(f"{pollux.url}/readyz"))


ALL_WAYS: tuple[dict[str, Any], ...] = (
    {"model": CACHED, "input": "x"},
    {"model": CACHED, "input": "x", "stream": True},
    {"model": NATIVE, "input": "x", "background": True},
    {"model": NATIVE, "input": "x", "background": True, "stream": True},
)
"""A request in each of the ways that reach the provider at once."""


async def provider_unreachable(stage: Stage) -> AsyncIterator[Refusal]:
    async with stage.alice(f"http://127.0.0.1:{free_port()}/v1") as http:
        for body in ALL_WAYS:
            yield await post(http, body)


async def provider_silent(stage: Stage) -> AsyncIterator[Refusal]:
    async def sleep(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with (
        running_script(sleep) as upstream,
        stage.alice(upstream.base_url, timeout_s=0.1, stream_timeout_s=0.1) as http,
    ):
        for body in ALL_WAYS:
            yield await post(http, body)
        assert len(upstream.requests) == len(ALL_WAYS)


ODD_ERROR = {"message": "Your tool is odd.", "type": "teapot_error", "param": "tools[0]", "code": "odd_tool"}


async def model_not_served(stage: Stage) -> AsyncIterator[Refusal]:
    config = impatient(stage.simulator)
    for entry in config["model_list"]:
        entry["litellm_params"] = {"model": "homemade/x", "api_key": "sk-never-sent"}
    async with running_replica(config, stage.store_url) as replica, replica.http() as http:
        for body in ALL_WAYS:
            yield await post(http, body)


async def operation_not_served(stage: Stage) -> AsyncIterator[Refusal]:
    config = impatient(stage.simulator)
    for entry in config["model_list"]:
        entry["model_info"] = {"api": "chat"}
    async with running_replica(config, stage.store_url) as replica, replica.http() as http:
        for path in ("input_tokens", "compact"):
            yield await refusal(await http.post(f"responses/{path}", json={"model": CACHED, "input": "x"}))


async def provider_refuses(stage: Stage) -> AsyncIterator[Refusal]:
    async with running_script(refusing(422, {"error": ODD_ERROR})) as upstream, stage.alice(upstream.base_url) as http:
        for body in ALL_WAYS:
            yield await post(http, body)


async def provider_refuses_credential(stage: Stage) -> AsyncIterator[Refusal]:
    error = {"message": f"Incorrect API key provided: {UPSTREAM_KEY}.", "type": "auth", "code": "invalid_api_key"}
    async with running_script(refusing(401, {"error": error})) as upstream, stage.alice(upstream.base_url) as http:
        for body in ALL_WAYS:
            yield await post(http, body)


def refusing(status: int, body: Any, headers: dict[str, str] | None = None) -> RequestHandler:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)

    async def refuse(_request: web.Request) -> web.StreamResponse:
        kind = "text/html" if isinstance(body, bytes) else "application/json"
        return web.Response(status=status, body=raw, content_type=kind, headers=headers)

    return refuse


# The rows.


@dataclass(frozen=True)
class Row:
    fields: tuple[int, str, str | None, str | None]
    """Status, type, code, param."""
    message: str
    """A pattern for all of it."""
    provoke: Callable[[Stage], AsyncIterator[Refusal]]
    retry_after: bool = False


def invalid(
    status: int, code: str | None, param: str | None, message: str, provoke: Callable[[Stage], AsyncIterator[Refusal]]
) -> Row:
    return Row((status, "invalid_request_error", code, param), message, provoke)


def failing(
    status: int, code: str, message: str, provoke: Callable[[Stage], AsyncIterator[Refusal]], *, retry_after: bool
) -> Row:
    return Row((status, "server_error", code, None), message, provoke, retry_after)


ROWS: dict[str, Row] = {
    "No key": invalid(401, "invalid_api_key", None, r"You didn't provide an API key\. Send it in .*", no_key),
    "Wrong key": invalid(401, "invalid_api_key", None, r"Incorrect API key provided: sk-…3f2a\.", wrong_key),
    "Key that the config does not list, where no provider decides about it": invalid(
        403, "key_not_configured", None, r"This API key is not configured here, .*\.", key_not_configured
    ),
    "Not HTTP": invalid(400, "malformed_http", None, r"This is not a valid HTTP request \(\w+\)\.", not_http),
    "Header too long, or too many headers": invalid(
        431,
        "headers_too_large",
        None,
        r"The request has a header of more than 8190 bytes, or .* 128 .*",
        head_too_large,
    ),
    "Path too long": invalid(
        414, "uri_too_long", None, r"The path with its query is longer than the limit of 65536 bytes\.", path_too_long
    ),
    "Client too slow": invalid(
        408, "request_timeout", None, r"The request is incomplete: the (headers|body) of a request did not .*", too_slow
    ),
    "Too many open requests of a key": Row(
        (429, "requests", "rate_limit_exceeded", None),
        r"This key has 1 requests open here, its limit\. Try again when one has ended\.",
        too_many_open,
        retry_after=True,
    ),
    "Too many connections of an address": Row(
        (429, "requests", "rate_limit_exceeded", None),
        r"Your address has 1 connections open, which is all that one may have\.",
        too_many_of_an_address,
        retry_after=True,
    ),
    "No certificate, where clients must show one": invalid(
        403,
        "certificate_required",
        None,
        r"This server serves only clients that show a certificate when they connect\.",
        no_certificate,
    ),
    "Body that is no JSON object": invalid(
        400,
        "invalid_json",
        None,
        r"The request body is (empty: expected a JSON object|not a JSON object|not valid JSON: .* column \d+)\.",
        no_object,
    ),
    "Body in an unknown `Content-Encoding`": invalid(
        415,
        "unsupported_encoding",
        None,
        r"The Content-Encoding 'br' is not supported\. Supported are: gzip, deflate, zstd\.",
        unknown_encoding,
    ),
    "Unknown `Expect`": invalid(
        417,
        "expectation_failed",
        None,
        r"The expectation 'a miracle' can't be met\. Known is: 100-continue\.",
        expecting,
    ),
    "WebSocket": invalid(426, "websocket_not_supported", None, r"WebSockets are not served here\. .*", websocket),
    "Field or query parameter of the wrong type": invalid(
        400,
        "invalid_type",
        "background",
        r"Invalid type for 'background': expected a boolean, but got a string instead\.",
        wrong_type,
    ),
    "Value that is not allowed": invalid(
        400, "invalid_value", "order", r"Invalid value for 'order': expected one of asc, desc\.", bad_value
    ),
    "No model named": invalid(
        400, "missing_required_parameter", "model", r"Missing required parameter: 'model'\.", no_model
    ),
    "Unknown model, or not for this key": invalid(
        404,
        "model_not_found",
        "model",
        r"The model 'x' does not exist or you do not have access to it\.",
        unknown_model,
    ),
    "Unknown id, or somebody else's, expired, deleted, undecodable": invalid(
        404, None, None, r"Response with id '\S+' not found\.", no_such_response
    ),
    "Id in the form of a provider's own": invalid(
        404, None, None, r"Response with id '\S+' not found\. .* pollux\.composite_ids is 'opaque'\.", raw_id
    ),
    "Id that LiteLLM encrypted": invalid(
        404,
        None,
        None,
        r"Response with id '\S+' not found\. .* general_settings\.disable_responses_id_security: true .*",
        encrypted_id,
    ),
    "Continuing a response that has not ended": invalid(
        400,
        "previous_response_not_finished",
        "previous_response_id",
        r"Previous response with id '\S+' is (queued|in_progress): wait until it has ended\.",
        unfinished_previous,
    ),
    "Continuing an unknown response": invalid(
        400,
        "previous_response_not_found",
        "previous_response_id",
        r"Previous response with id '\S+' not found\.( This is the form .*)?",
        unknown_previous,
    ),
    "Cancelling a response without background": invalid(
        400, None, None, r"Cannot cancel a synchronous response\.", cancel_synchronous
    ),
    "Cancelling a response that has ended": invalid(
        400, None, None, r"Cannot cancel a (completed|failed|incomplete) response\.", cancel_too_late
    ),
    "Streaming a response created without `stream`": invalid(
        400,
        None,
        "stream",
        r"This response cannot be streamed because it was not created with stream=true\.",
        never_streamed,
    ),
    "Page too large": invalid(
        400,
        "integer_above_max_value",
        "limit",
        r"Invalid 'limit': integer above maximum value\. Expected a value <= 100, but got \d+ instead\.",
        page_too_large,
    ),
    "Page too small": invalid(
        400,
        "integer_below_min_value",
        "limit",
        r"Invalid 'limit': integer below minimum value\. Expected a value >= 1, but got -?\d instead\.",
        page_too_small,
    ),
    "Body too large": invalid(
        413, "request_too_large", None, r"The request body is larger than the limit of 65536 bytes\.", too_large
    ),
    "`Idempotency-Key` used with another body": invalid(
        400, "idempotency_key_reused", None, r"This Idempotency-Key was used with another request body\. .*", key_reused
    ),
    "Method not allowed": invalid(
        405, "method_not_allowed", None, r"(PUT|GET) is not allowed here\. Allowed are: .*\.", wrong_method
    ),
    "No such route": invalid(404, None, None, r"There is no (GET|POST) /v1/\S+\. .*/v1/responses\.", no_route),
    "Store unreachable": failing(
        503,
        "service_unavailable",
        r"The service can't reach its store right now\. Try again shortly\.",
        no_store,
        retry_after=True,
    ),
    "Starting, while the store is away": failing(
        503,
        "service_unavailable",
        r"This instance is starting: it waits for its store\. Try again shortly\.",
        starting,
        retry_after=True,
    ),
    "More clients than files may be open": failing(
        503,
        "service_unavailable",
        r"This instance has no room for another connection\. Try again shortly\.",
        no_room,
        retry_after=True,
    ),
    "Draining": failing(503, "service_unavailable", r"This instance is shutting down\..*", draining, retry_after=True),
    "Provider unreachable": failing(
        502,
        "upstream_unavailable",
        r"The provider could not be reached, or broke the connection\.",
        provider_unreachable,
        retry_after=False,
    ),
    "Provider silent for too long": failing(
        504, "upstream_timeout", r"The provider did not answer in time\.", provider_silent, retry_after=False
    ),
    "Too many unfinished responses of a key": Row(
        (429, "requests", "rate_limit_exceeded", None),
        r"This key has 1 responses under way, its limit\. Wait for some to end\.",
        too_many_in_flight,
        retry_after=True,
    ),
    "Too many creates of a key in a minute": Row(
        (429, "requests", "rate_limit_exceeded", None),
        r"This key has reached its limit of requests per minute, 1\. Try again in (60|5\d) s\.",
        too_many_a_minute,
        retry_after=True,
    ),
    "More creates at once than this instance can store within ten seconds": Row(
        (429, "requests", "rate_limit_exceeded", None),
        r"This instance has \d+ requests to store before this one\. Try again later\.",
        overloaded,
        retry_after=True,
    ),
    "Too many queued responses": Row(
        (429, "requests", "rate_limit_exceeded", None),
        r"The queue of this service is full\. Try again later\.",
        too_many_queued,
        retry_after=True,
    ),
    "Deployments at their `max_parallel_requests`": Row(
        (429, "requests", "rate_limit_exceeded", None),
        r"The model 'gpt-5\.2' has as many requests under way as its deployments allow\. Try again later\.",
        deployments_full,
        retry_after=True,
    ),
    "Model that the config names, and that can't be served": invalid(
        400,
        "model_not_served",
        "model",
        r"The model '[\w.-]+' can't be served here: its provider 'homemade' has no address here: .* LiteLLM proxy, .*",
        model_not_served,
    ),
    "Operation that the model's provider does not have": invalid(
        400,
        "operation_not_served",
        "model",
        r"The provider 'openai' of the model '[\w.-]+' can't (compact an input|count the tokens of an input)\.",
        operation_not_served,
    ),
    "Provider refuses": Row((422, "teapot_error", "odd_tool", "tools[0]"), r"Your tool is odd\.", provider_refuses),
    "Provider refuses the credential of its deployment": invalid(
        401,
        "upstream_authentication",
        None,
        r"The provider refused Pollux's credential for this deployment\.",
        provider_refuses_credential,
    ),
}
NOT_REFUSED = "Cancelling again"
"""The one row of the table that is no error."""


@pytest.mark.parametrize("name", ROWS)
async def test_each_error_has_its_status_its_four_fields_and_its_message(name: str, stage: Stage) -> None:
    row, provoked = ROWS[name], 0
    async for answer in row.provoke(stage):
        provoked += 1
        assert answer.fields == row.fields
        assert re.fullmatch(row.message, answer.message), answer.message
        seconds = answer.headers.get("Retry-After")
        assert (seconds is not None) == row.retry_after
        # Beyond two minutes SDKs don't come back.
        assert seconds is None or 1 <= int(seconds) <= 120
    assert provoked


async def test_a_repeated_cancel_is_no_error_and_gives_the_same_object(pollux: Replica) -> None:
    response_id = await create(pollux, HANGS)
    async with pollux.http() as http:
        first = await http.post(f"responses/{response_id}/cancel")
        second = await http.post(f"responses/{response_id}/cancel")
        assert first.status == second.status == 200
        assert await first.read() == await second.read()


def documented() -> dict[str, list[str]]:
    """The README's table: the cells behind each case."""
    lines = section("Errors").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")][1:]
    return {case.strip(): [cell.strip() for cell in cells] for case, *cells in rows}


def test_the_readme_has_the_same_rows_and_no_other() -> None:
    assert sorted(documented()) == sorted([*ROWS, NOT_REFUSED])


@pytest.mark.parametrize("name", ROWS)
def test_the_readme_tells_status_type_code_and_param(name: str) -> None:
    *cells, message = documented()[name]
    assert len(cells) == 4
    assert message
    for cell, value in zip(cells, ROWS[name].fields, strict=True):
        if not cell.startswith("*"):  # in words
            assert cell.strip("`") == ("null" if value is None else str(value))


# What becomes of a provider's errors.


@pytest.mark.parametrize("body", ALL_WAYS)
@pytest.mark.parametrize("status", [400, 404, 408, 409, 413, 429, 500, 503, 529])
async def test_a_providers_error_keeps_its_status_its_fields_and_retry_after(
    status: int, body: dict[str, Any], store_url: str
) -> None:
    handler = refusing(status, {"error": ODD_ERROR}, {"Retry-After": "7"})
    async with running_script(handler) as upstream, _alice(upstream, store_url) as http:
        answer = await post(http, body)
        assert answer.fields == (status, "teapot_error", "odd_tool", "tools[0]")
        assert answer.message == "Your tool is odd."
        assert answer.headers["Retry-After"] == "7"
        assert len(upstream.requests) == 1


@asynccontextmanager
async def _alice(upstream: Upstream, store_url: str, **pollux: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        running_replica(impatient(upstream.base_url, **pollux), store_url) as replica,
        replica.http() as http,
    ):
        yield http


@pytest.mark.parametrize(("body", "message"), [(b"", None), (b"<html>Bad gateway</html>", "Bad gateway")])
@pytest.mark.parametrize(("status", "kind"), [(500, "server_error"), (418, "invalid_request_error")])
async def test_what_is_no_error_object_still_becomes_one_in_every_mode(
    status: int, kind: str, body: Any, message: str | None, store_url: str
) -> None:
    async with running_script(refusing(status, body)) as upstream, _alice(upstream, store_url) as http:
        for request in ALL_WAYS:
            answer = await post(http, request)
            assert answer.fields == (status, kind, None, None)
            assert answer.message == (message or f"The provider answered with status {status}.")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {', '{"error": {'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ({"detail": "no"}, "no"),
        ([1], "[1]"),
        ({"error": None}, '{"error":null}'),
        ({"message": {"detail": [{"loc": ["body"], "msg": "extra"}]}}, "body: extra"),
        (b"x" * 1_000_000, "x" * 300 + "…"),
        ({"error": {"message": "Invalid key sk-proj-0123456789abcdef was given."}}, "Invalid key sk-… was given."),
    ],
)
async def test_a_providers_reason_is_never_lost(body: Any, message: str, store_url: str) -> None:
    async with running_script(refusing(422, body)) as upstream, _alice(upstream, store_url) as http:
        assert (await post(http, ALL_WAYS[0])).message == message


@pytest.mark.parametrize(
    ("error", "fields", "message"),
    [
        ("just text", (400, "invalid_request_error", None, None), "just text"),
        ({"message": "m", "code": 42, "param": 7}, (400, "invalid_request_error", "42", "7"), "m"),
        ({"message": ["m"], "type": None}, (400, "invalid_request_error", None, None), "m"),
    ],
)
async def test_an_odd_error_is_brought_into_shape(
    error: Any, fields: tuple[Any, ...], message: str, store_url: str
) -> None:
    async with running_script(refusing(400, {"error": error})) as upstream, _alice(upstream, store_url) as http:
        answer = await post(http, ALL_WAYS[0])
        assert answer.fields == fields
        assert answer.message == message


async def test_an_error_that_arrives_in_pieces_is_read_to_its_end(store_url: str) -> None:
    async def in_pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=400, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for byte in orjson.dumps({"error": ODD_ERROR}):
            await response.write(bytes([byte]))
            await asyncio.sleep(0)
        return response

    async with running_script(in_pieces) as upstream, _alice(upstream, store_url) as http:
        assert (await post(http, ALL_WAYS[0])).fields == (400, "teapot_error", "odd_tool", "tools[0]")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int, store_url: str) -> None:
    handler = refusing(status, b"moved", {"Location": "/elsewhere"})
    async with running_script(handler) as upstream, _alice(upstream, store_url) as http:
        for body in ALL_WAYS:
            answer = await post(http, body)
            assert answer.fields == (502, "server_error", "upstream_unavailable", None)
            assert answer.message == "The provider answered with a redirect, which is not followed."
        assert {seen.path_qs for seen in upstream.requests} == {"/v1/responses"}


@pytest.mark.parametrize("status", [401, 403])
async def test_a_provider_that_refuses_the_credential_does_not_tell_it_by_any_way(status: int, store_url: str) -> None:
    error = {"message": f"Incorrect API key provided: {UPSTREAM_KEY}", "type": UPSTREAM_KEY, "param": UPSTREAM_KEY}
    async with running_script(refusing(status, {"error": error})) as upstream, _alice(upstream, store_url) as http:
        for body in ALL_WAYS:
            answer = await post(http, body)
            assert answer.fields == (status, "invalid_request_error", "upstream_authentication", None)
        created = await (await http.post("responses", json=background())).json()
        failed = await (await http.get(f"responses/{created['id']}?wait=20")).text()
        assert orjson.loads(failed)["error"]["code"] == "upstream_authentication"
        assert UPSTREAM_KEY not in failed


Playing = Callable[[web.Request], Awaitable[web.StreamResponse]]


def forgetful(quote: str) -> Playing:
    """A provider that begins each response, but refuses all that follows, quoting what it was asked for."""

    async def play(request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read() or b"{}")
        if "model" in body and "previous_response_id" not in body:
            response = {"id": RAW_ID, "object": "response", "status": "queued", "output": []}
            return web.json_response({**response, "background": bool(body.get("background"))})
        status = 400 if "model" in body else 404
        return web.json_response({"error": {"message": quote.format(RAW_ID)}}, status=status)

    return play


async def test_a_providers_404_is_404_and_names_the_response_as_the_client_does(store_url: str) -> None:
    async with (
        running_script(forgetful("Response with id '{0}' not found.")) as upstream,
        _alice(upstream, store_url) as http,
    ):
        for model in (CACHED, NATIVE):
            created = await http.post("responses", json={**background(model=model), "background": model == NATIVE})
            response_id = (await created.json())["id"]
            for path in each_use_of(response_id):
                answer = await refusal(await http.request(*path))
                assert answer.fields == (404, "invalid_request_error", None, None)
                assert answer.message == f"Response with id '{response_id}' not found."


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", [CACHED, NATIVE])
async def test_a_provider_that_refuses_to_continue_names_the_response_as_the_client_did(
    model: str, streamed: bool, store_url: str
) -> None:
    async with (
        running_script(forgetful("Previous response with id '{0}' not found.")) as upstream,
        _alice(upstream, store_url) as http,
    ):
        first = await (await http.post("responses", json={"model": model, "input": "x"})).json()
        body = {"model": model, "input": "y", "previous_response_id": first["id"], "stream": streamed}
        for background_too in (False, model == NATIVE):
            answer = await post(http, {**body, "background": background_too})
            assert answer.fields == (400, "invalid_request_error", None, None)
            assert answer.message == f"Previous response with id '{first['id']}' not found."


async def test_a_cached_response_that_can_not_be_continued_fails_and_tells_no_raw_id(store_url: str) -> None:
    async with (
        running_script(forgetful("Previous response with id '{0}' not found.")) as upstream,
        _alice(upstream, store_url) as http,
    ):
        first = await (await http.post("responses", json={"model": CACHED, "input": "x"})).json()
        created = await http.post("responses", json=background("y", previous_response_id=first["id"]))
        response_id = (await created.json())["id"]
        failed = await (await http.get(f"responses/{response_id}?wait=20")).json()
        assert failed["status"] == "failed"
        assert failed["error"]["message"] == f"Previous response with id '{first['id']}' not found."
        assert failed["previous_response_id"] == first["id"]


async def test_errors_have_the_same_shape_under_every_prefix_and_method(pollux: Replica) -> None:
    async with aiohttp.ClientSession(pollux.url, headers={"api-key": ALICE}) as http:
        for prefix in ("", "/v1", "/openai/v1", "/openai", "/openai/deployments/gpt-5.2"):
            assert (await refusal(await http.get(f"{prefix}/responses/x"))).status == 404
            assert (await refusal(await http.patch(f"{prefix}/responses/x"))).status == 405
            head = await http.head(f"{prefix}/responses/x")
            assert (head.status, await head.read()) == (404, b"")
            assert head.headers["X-Request-Id"]


async def test_no_answer_tells_which_versions_run(stage: Stage) -> None:
    async with stage.pollux() as pollux, pollux.http() as http:
        created = await http.post("responses", json=background(stream=True))
        answers = [created, *[await http.post("responses", json=body) for body in ALL_WAYS]]
        answers += [await http.get(path) for path in ("models", "responses", f"{pollux.url}/livez")]
        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["Server"] for answer in answers} == {"pollux"}
