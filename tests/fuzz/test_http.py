"""A live server takes requests that hypothesis draws, some of them no HTTP: each gets an answer of the contract.

Never a 500, always the error's four fields and a request id, and never a line in the log at the level ERROR.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from server.protocol import jsontext
from tests.conftest import plain_url
from tests.fuzz.material import Material
from tests.fuzz.targets.requests import _KEYS, _WORDS
from tests.support.obliging import obliging
from tests.support.refusals import checked
from tests.support.replica import ALICE, CACHED, MASTER_KEY, NATIVE, Replica, make_config, running_replica
from tests.support.upstreams import running_script
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "get", "PO ST", "\x00")
_PATHS = (
    *("/v1/responses", "/v1/responses/resp_x", "/v1/responses/litellm_poll_x/cancel", "/v1/responses/cancel"),
    *("/v1/responses/input_tokens", "/v1/responses/compact", "/v1/responses/resp_x/input_items", "/v1/models"),
    *("/v1/webhook_endpoints", "/v1/webhook_endpoints/we_x/rotate_secret", "/v1/usage", "/v1/webhook_event_types"),
    *("/openai/deployments/gpt-5.2/responses", "/livez", "/readyz", "/metrics", "/", "//", "/v1/%00", "*"),
    *("http://[", "x"),
)
_QUERIES = (
    "",
    "",
    "?limit=0",
    "?wait=nan",
    "?after=%ff",
    "?ids=a,b&wait=0.01",
    "?stream=%00",
    "?since=x&until=y",
    "?[]=",
)
_HEADERS = (
    *(f"Authorization: Bearer {ALICE}", f"Authorization: Bearer {MASTER_KEY}", "Authorization: Basic \xff"),
    *("api-key: x",),
    *("Content-Type: application/json", "Content-Type: text/\x7f", "Content-Encoding: gzip", "Content-Encoding: br, x"),
    *("Prefer: wait=0.01", "Prefer: wait=9, wait=\xb2", "If-None-Match: \xff", "Idempotency-Key: \xe9"),
    *("Expect: 100-continue",),
    *("X-Request-Id: a b", "Transfer-Encoding: gzip", "Content-Length: 1e3", "Range: bytes=0-"),
    *("Upgrade: websocket", "no colon"),
    *("Last-Event-ID: \xff", "Origin: null", "traceparent: 00-0-0-0", "Connection: upgrade", ": x", "X: \x00"),
    *("Host: [", " x: y"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pollux(store_server: str) -> AsyncIterator[Replica]:
    with redis.Redis.from_url(plain_url(store_server)) as admin:
        admin.flushdb()
    async with (
        running_script(obliging()) as provider,
        running_replica(make_config(provider.base_url), store_server) as replica,
    ):
        yield replica


def drawn(data: bytes) -> bytes:
    """A request as bytes: with what makes it a right one more often than not."""
    material = Material(data)
    method = material.pick(_METHODS[:2]) if material.number(4) else material.pick(_METHODS)
    path = (_PATHS[0] if material.number(3) == 0 else material.pick(_PATHS)) + material.pick(_QUERIES)
    headers = [material.pick(_HEADERS) for _ in material.times(4)]
    if material.number(4):
        headers.append(f"Authorization: Bearer {ALICE}")
    body = _body(material) if method != "GET" else b""
    if material.number(8):
        headers.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def _body(material: Material) -> bytes:
    kind = material.number(6)
    if kind == 0:
        return material.json(_KEYS, _WORDS)
    if kind == 1:
        return material.raw(32)
    made: dict[str, Any] = {"model": material.pick((CACHED, NATIVE, "x")), "input": material.text(_WORDS)}
    made |= {name: material.value(_KEYS, _WORDS, 3) for name in (material.text(_KEYS) for _ in material.times(5))}
    made |= {"background": material.pick((True, None, False)), "stream": material.pick((None, None, True))}
    return jsontext.dumps(made)


async def answered(url: str, request: bytes) -> bytes:
    """All that the server answers, until it closes the connection; we have nothing more to say."""
    reader, writer = await asyncio.open_connection(URL(url).host, URL(url).port)
    try:
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def is_of_the_contract(answer: bytes) -> None:
    if not answer:
        return  # a request that never ended, as we said by `write_eof`
    head, _, body = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = CIMultiDict((name, value) for name, _, value in (line.partition(": ") for line in lines))
    status = int(first.split()[1])
    assert status < 500 or status in (501, 502, 503), answer[:500]
    assert headers["X-Request-Id"]
    if status >= 400 and body:
        checked(status, headers, body)


async def test_whatever_comes_is_answered(pollux: Replica, caplog: pytest.LogCaptureFixture) -> None:
    requests: list[bytes] = []

    @settings(deadline=None, database=None, max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.binary(min_size=20, max_size=200))
    def draw(data: bytes) -> None:
        requests.append(drawn(data))

    draw()
    for request in requests:
        answer = await answered(pollux.url, request)
        try:
            is_of_the_contract(answer)
        except (AssertionError, KeyError, ValueError) as error:
            raise AssertionError(f"{request!r} got {answer[:800]!r}") from error
        wrong = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert wrong == [], request
    async with pollux.http() as http:
        assert (await http.get("models")).status == 200
    assert pollux.context is not None
    await wait_until(lambda: _is_idle(pollux), what="all runs have ended")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_a_client_that_hangs_up_before_it_may_send_its_body_is_no_error_of_ours(
    method: str, pollux: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"{method} /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\nExpect: 100-continue\r\n"
    for length in (0, 100):
        await answered(pollux.url, f"{head}Content-Length: {length}\r\n\r\n".encode())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def _is_idle(pollux: Replica) -> bool:
    assert pollux.context is not None
    return pollux.context.worker.active == 0
