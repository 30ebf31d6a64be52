"""Clients that are slow, idle or many: each has its deadline or its limit, and nobody else notices."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from yarl import URL

from server.api import deadlines
from server.api.peers import Peers
from tests.support.replica import ALICE, CACHED, Replica, create, make_config, running_replica
from tests.support.waiting import wait_until

HEAD = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\n".encode()
ALIVE = b'{"status": "ok"}'
PROXIED = b'{"model": "gpt-5.2", "input": "hello"}'


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep looks more often, and gives answers less time."""
    monkeypatch.setattr("server.api.front.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("server.api.front.SPARED_S", 0.0)
    monkeypatch.setattr(deadlines, "ANSWER_WITHIN_S", 0.3)


@asynccontextmanager
async def impatient(simulator: str, store_url: str, **pollux: Any) -> AsyncIterator[Replica]:
    short = {"header_timeout_s": 0.3, "body_timeout_s": 0.3, **pollux}
    async with running_replica(make_config(simulator, **short), store_url) as replica:
        yield replica


@asynccontextmanager
async def connected(pollux: Replica) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    url = URL(pollux.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


async def test_a_connection_that_says_nothing_is_closed_without_a_word(simulator: str, store_url: str) -> None:
    async with impatient(simulator, store_url) as pollux, connected(pollux) as (reader, _):
        assert await reader.read() == b""


@pytest.mark.parametrize("earlier", [0, 2])
async def test_headers_that_never_end_are_answered_408_and_closed(earlier: int, simulator: str, store_url: str) -> None:
    async with impatient(simulator, store_url) as pollux, connected(pollux) as (reader, writer):
        for _ in range(earlier):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(ALIVE)).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.1)  # so that the sweep sees it idle
        began = time.monotonic()

        async def drip() -> None:
            writer.write(HEAD)
            while not writer.is_closing():
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        answer = await reader.read()
        dripping.cancel()
        assert re.match(rb"HTTP/1\.[01] 408 Request Timeout\r\n", answer)
        assert b"\r\nConnection: close\r\n" in answer
        assert b'"code":"request_timeout"' in answer
        assert time.monotonic() - began < 3


async def test_a_body_that_stops_is_answered_408(simulator: str, store_url: str) -> None:
    async with impatient(simulator, store_url) as pollux, connected(pollux) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n" + PROXIED[:20])
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert b"the body of a request" in answer


async def test_a_body_that_drips_is_answered_408(simulator: str, store_url: str) -> None:
    """By chunks, without an announced length: only the rate tells."""
    async with impatient(simulator, store_url) as pollux, connected(pollux) as (reader, writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"1\r\n \r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        answer = await reader.readuntil(b"\r\n\r\n")
        dripping.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_long_body_on_a_slow_line_is_taken(simulator: str, store_url: str) -> None:
    """It takes several deadlines, and brings what is asked in each."""
    async with impatient(simulator, store_url) as pollux, connected(pollux) as (reader, writer):
        body = PROXIED + b" " * 20_000
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 1000):
            writer.write(body[start : start + 1000])
            await asyncio.sleep(0.05)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_waits_streams_and_idle_connections_outlast_every_deadline(simulator: str, store_url: str) -> None:
    async with impatient(simulator, store_url) as pollux, pollux.http() as http:
        late = "[[first_delay_ms=1500]]"
        streamed = await http.post("responses", json={"model": CACHED, "input": late, "stream": True})
        response_id = await create(pollux, late)
        waited = await http.get(f"responses/{response_id}?wait=20")
        assert (await waited.json())["status"] == "completed"
        assert b"response.completed" in await streamed.read()
        async with connected(pollux) as (reader, writer):
            for _ in range(2):
                writer.write(b"GET /livez HTTP/1.1\r\n")
                await asyncio.sleep(0.15)  # so that the sweep sees a part of it, behind a long rest
                writer.write(b"Host: x\r\n\r\n")
                assert (await reader.readuntil(ALIVE)).startswith(b"HTTP/1.1 200 ")
                await asyncio.sleep(1)  # longer than the deadlines


async def test_an_idle_connection_is_closed_after_its_time(simulator: str, store_url: str) -> None:
    async with (
        impatient(simulator, store_url, keepalive_timeout_s=0.2) as pollux,
        connected(pollux) as (reader, writer),
    ):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).endswith(ALIVE)


async def test_who_does_not_take_an_answer_is_disconnected(simulator: str, store_url: str) -> None:
    async with impatient(simulator, store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, "x" * 900_000)
        await (await http.get(f"responses/{response_id}?wait=20")).read()
        url, held = URL(pollux.url), socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held.connect((url.host, url.port))
        _, writer = await asyncio.open_connection(sock=held, limit=1024)
        request = f"GET /v1/responses/{response_id}/input_items HTTP/1.1\r\nAuthorization: Bearer {ALICE}\r\n\r\n"
        writer.write(request.encode() * 20)  # more than the kernel takes for it
        await wait_until(lambda: _is_cut(writer), what="the server has cut it off")


async def _is_cut(writer: asyncio.StreamWriter) -> bool:
    await asyncio.sleep(0.05)
    try:
        writer.write(b"x")
        await writer.drain()
    except ConnectionError:
        return True
    return writer.transport.is_closing()


async def test_connections_above_the_limit_get_503_and_a_free_place_is_taken_again(
    simulator: str, store_url: str
) -> None:
    async with running_replica(make_config(simulator, max_connections=2), store_url) as pollux:
        async with connected(pollux) as one, connected(pollux) as two:
            for _, writer in (one, two):
                writer.write(HEAD + b"Content-Length: 5\r\n\r\n")
            async with connected(pollux) as (reader, writer):
                writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        async with pollux.http() as http:
            await wait_until(lambda: _served(http), what="there is room again")


async def _served(http: aiohttp.ClientSession) -> bool:
    async with http.get("models") as answer:
        return answer.status == 200


async def test_idle_connections_make_room_where_it_is_scarce(simulator: str, store_url: str) -> None:
    async with (
        impatient(simulator, store_url, max_connections=2) as pollux,
        connected(pollux) as one,
        connected(pollux) as two,
    ):
        for _, writer in (one, two):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        first = one[0]
        assert (await first.read()).endswith(ALIVE), "it is answered, and closed although it might be kept"
        async with pollux.http() as http:
            assert (await http.get("models")).status == 200


@pytest.mark.parametrize("trusted", [True, False])
async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(
    trusted: bool, simulator: str, store_url: str
) -> None:
    limits: dict[str, Any] = {"max_connections_per_address": 2, "trusted_proxies": ["127.0.0.0/8"] if trusted else []}
    opening = HEAD + b"Content-Length: 5\r\nX-Forwarded-For: 1.1.1.1, 203.0.113.9, 127.0.0.7\r\n\r\n"
    async with (
        running_replica(make_config(simulator, **limits), store_url) as pollux,
        connected(pollux) as (_, one),
        connected(pollux) as (_, two),
    ):
        for writer in (one, two):
            writer.write(opening)
        await asyncio.gather(one.drain(), two.drain())
        forged = {"X-Forwarded-For": "8.8.8.8, 203.0.113.9"}
        await wait_until(lambda: _refused(pollux, forged), what="that address has enough")
        served = not await _refused(pollux, {"X-Forwarded-For": "203.0.113.10"})
        assert served == trusted, "where no proxy is trusted, all of this is one address"


async def _refused(pollux: Replica, headers: dict[str, str]) -> bool:
    """Whether a new connection is refused."""
    async with pollux.http() as http, http.get("models", headers=headers) as answer:
        return answer.status == 429


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
        ("fd00::1", ["2001:db8:1:2:ffff::1"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["10.0.0.2"], None),
        ("10.0.0.1", ["203.0.113.9, unknown"], None),
        ("10.0.0.1", [], None),
        ("203.0.113.1", ["203.0.113.9"], None),
        ("", ["203.0.113.9"], None),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str, forwarded: list[str], client: str | None
) -> None:
    assert Peers(["10.0.0.0/8", "fd00::/8"]).behind((peer, 4711), forwarded) == client
