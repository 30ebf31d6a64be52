"""HTTP as the world's clients write it: encodings, slashes, expectations, browsers, and Azure's SDK."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from openai import AsyncAzureOpenAI, AzureOpenAI
from zstandard import ZstdCompressor

from tests.support.refusals import refusal
from tests.support.replica import ALICE, CACHED, Replica, create, make_config, running_replica
from tests.support.sse import read_stream

BODY = orjson.dumps({"model": CACHED, "input": "hi", "background": True})


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def streamed_zstd(data: bytes) -> bytes:
    packer = ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "deflate": zlib.compress,
    "deflate ": raw_deflate,
    "zstd": ZstdCompressor().compress,
    "Zstd": streamed_zstd,
    "zstd, gzip": lambda data: gzip.compress(ZstdCompressor().compress(data)),
    "identity": bytes,
    "": bytes,
}


@pytest.fixture
async def http(pollux: Replica) -> AsyncIterator[aiohttp.ClientSession]:
    async with pollux.http() as session:
        yield session


def encoded(encoding: str, data: bytes) -> dict[str, Any]:
    return {"data": data, "headers": {"Content-Encoding": encoding, "Content-Type": "application/json"}}


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_an_encoded_body_is_decoded(encoding: str, http: aiohttp.ClientSession) -> None:
    answer = await http.post("responses", **encoded(encoding, ENCODERS[encoding](BODY)))
    assert answer.status == 200, await answer.text()
    assert (await answer.json())["status"] == "queued"


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, br", "aes128gcm", ", ".join(["gzip"] * 5)])
async def test_an_encoding_that_nobody_knows_is_415(encoding: str, http: aiohttp.ClientSession) -> None:
    answer = await http.post("responses", **encoded(encoding, BODY))
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, zstd"
    assert (await refusal(answer)).fields == (415, "invalid_request_error", "unsupported_encoding", None)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
async def test_a_body_that_is_cut_or_no_such_thing_is_refused(encoding: str, http: aiohttp.ClientSession) -> None:
    for data in (b"garbage", ENCODERS[encoding](BODY)[:-5], ENCODERS[encoding](BODY * 9999)[:-1]):
        answer = await refusal(await http.post("responses", **encoded(encoding, data)))
        assert answer.fields == (400, "invalid_request_error", "invalid_json", None)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
async def test_a_bomb_is_refused_before_it_goes_off(encoding: str, simulator: str, store_url: str) -> None:
    async with (
        running_replica(make_config(simulator, max_body_bytes=100_000), store_url) as pollux,
        pollux.http() as http,
    ):
        bomb = ENCODERS[encoding](b" " * 60_000_000)
        assert len(bomb) < 100_000
        assert (await refusal(await http.post("responses", **encoded(encoding, bomb)))).status == 413


async def test_the_same_body_in_another_encoding_is_the_same_request(http: aiohttp.ClientSession) -> None:
    ids = set()
    for encoding in ("gzip", "zstd", "identity"):
        sent = encoded(encoding, ENCODERS[encoding](BODY))
        sent["headers"]["Idempotency-Key"] = "once"
        ids.add((await (await http.post("responses", **sent)).json())["id"])
    assert len(ids) == 1


async def test_a_slash_at_the_end_changes_nothing(pollux: Replica, http: aiohttp.ClientSession) -> None:
    for prefix in ("/v1", "", "/openai/v1", "/openai", f"/openai/deployments/{CACHED}"):
        base = pollux.url + prefix
        created = await (await http.post(f"{base}/responses/", data=BODY)).json()
        path = f"{base}/responses/{created['id']}"
        assert (await http.get(f"{path}/?wait=10")).status == 200
        assert (await http.get(f"{path}/input_items/")).status == 200
        assert (await http.get(f"{base}/models/{CACHED}/")).status == 200
        assert (await http.delete(f"{path}/")).status == 200
    assert (await http.get(f"{pollux.url}/livez/")).status == 200


async def test_a_body_may_begin_with_a_byte_order_mark(http: aiohttp.ClientSession) -> None:
    assert (await http.post("responses", data=b"\xef\xbb\xbf" + BODY)).status == 200


async def test_head_answers_without_a_body_and_waits_for_nothing(pollux: Replica, http: aiohttp.ClientSession) -> None:
    response_id = await create(pollux, "long [[words=500]] [[delay_ms=50]]", stream=True)
    async with asyncio.timeout(5):
        for query in ("", "?wait=40", "?stream=true"):
            answer = await http.head(f"responses/{response_id}{query}")
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["ETag"]
        assert (await http.head("responses")).status == 200
        assert (await http.head(f"{pollux.url}/readyz")).status == 200
        assert (await http.head("responses/nothing")).status == 404
    await http.delete(f"responses/{response_id}")


async def test_options_tells_what_may_be_done_and_asks_for_no_key(pollux: Replica) -> None:
    async with pollux.http(key=None) as http:
        for path, allowed in (("responses", "POST, GET, HEAD, OPTIONS"), ("responses/x/cancel", "POST, OPTIONS")):
            answer = await http.options(path)
            assert (answer.status, answer.headers["Allow"]) == (204, allowed)
            assert "Access-Control-Allow-Origin" not in answer.headers


async def talk(pollux: Replica, head: str, body: bytes = b"") -> bytes:
    """What comes back for bytes that no client library would send, until the connection is closed or falls silent."""
    host, _, port = pollux.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
    try:
        async with asyncio.timeout(1):
            return await reader.read(65536)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"POST /v1/responses HTTP/1.1\nHost: x\nAuthorization: Bearer {ALICE}\nExpect: 100-continue\n", b"100"),
        (f"POST /v1/responses HTTP/1.1\nHost: x\nAuthorization: Bearer {ALICE}\nExpect: 200-ok\n", b"417"),
        ("POST /v1/responses HTTP/1.1\nHost: x\nAuthorization: Bearer no\nExpect: 100-continue\n", b"401"),
        ("GET /nothing HTTP/1.1\nHost: x\nExpect: 100-continue\n", b"100"),
    ],
)
async def test_who_asks_before_sending_a_body_hears_what_would_become_of_it(
    head: str, status: bytes, pollux: Replica
) -> None:
    answer = await talk(pollux, head + "Content-Length: 5\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert status == b"100" or b"X-Request-Id" in answer


async def test_a_body_that_would_be_too_large_is_refused_before_it_is_sent(pollux: Replica) -> None:
    head = f"POST /v1/responses HTTP/1.1\nHost: x\nAuthorization: Bearer {ALICE}\nExpect: 100-continue\n"
    assert (await talk(pollux, head + "Content-Length: 999999999\n")).startswith(b"HTTP/1.1 413")


async def test_clients_of_http_1_0_and_absolute_targets_are_served(pollux: Replica) -> None:
    key = f"Authorization: Bearer {ALICE}\nContent-Length: {len(BODY)}\n"
    assert (await talk(pollux, f"POST /v1/responses HTTP/1.0\n{key}", BODY)).startswith(b"HTTP/1.0 200")
    target = f"{pollux.url}/v1/responses"
    assert (await talk(pollux, f"POST {target} HTTP/1.1\nHost: x\n{key}", BODY)).startswith(b"HTTP/1.1 200")


async def test_the_connection_can_be_used_on_after_a_refusal(pollux: Replica) -> None:
    connector = aiohttp.TCPConnector(limit=1)
    headers = {"Authorization": f"Bearer {ALICE}"}
    async with aiohttp.ClientSession(f"{pollux.url}/v1/", headers=headers, connector=connector) as http:
        for data, status in ((b"{", 400), (b'{"model":"unknown"}', 404), (b"x" * 100_000, 400), (BODY, 200)):
            answer = await http.post("responses", data=data)
            await answer.read()
            assert answer.status == status


# Browsers.

PAGE = "https://app.example"


@pytest.mark.parametrize(("origins", "allowed"), [([PAGE], PAGE), (["*"], "*"), ([f"{PAGE}/"], PAGE)])
async def test_pages_of_allowed_origins_may_call(
    origins: list[str], allowed: str, simulator: str, store_url: str
) -> None:
    async with running_replica(make_config(simulator, cors_origins=origins), store_url) as pollux:
        async with pollux.http(key=None) as http:
            asked = {
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,x-stainless",
            }
            preflight = await http.options("responses", headers={"Origin": PAGE, **asked})
            assert preflight.status == 204
            assert preflight.headers["Access-Control-Allow-Origin"] == allowed
            assert preflight.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless"
            assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
            unauthorized = await http.get("responses", headers={"Origin": PAGE})
            assert (unauthorized.status, unauthorized.headers["Access-Control-Allow-Origin"]) == (401, allowed)
        async with pollux.http() as http:
            body = {"model": CACHED, "input": "x", "stream": True, "background": True}
            streamed = await http.post("responses", json=body, headers={"Origin": PAGE})
            assert streamed.headers["Access-Control-Allow-Origin"] == allowed
            assert "ETag" in streamed.headers["Access-Control-Expose-Headers"]
            assert (await read_stream(streamed))[-1]["type"] == "response.completed"


async def test_pages_of_other_origins_may_not(simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator, cors_origins=[PAGE]), store_url) as pollux, pollux.http() as http:
        for origin in ("https://evil.example", "null", f"{PAGE}.evil.example"):
            answer = await http.get("models", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Vary"] == "Origin"


# Azure's SDK.


async def test_azures_sdk_creates_polls_streams_cancels_and_deletes(pollux: Replica) -> None:
    for deployment in (None, CACHED):
        async with AsyncAzureOpenAI(
            azure_endpoint=pollux.url,
            azure_deployment=deployment,
            api_key=ALICE,
            api_version="2025-03-01-preview",
            max_retries=0,
        ) as sdk:
            job = await sdk.responses.create(model=CACHED, input="hi", background=True)
            done = await sdk.responses.retrieve(job.id, extra_query={"wait": 20})
            assert (done.status, done.id) == ("completed", job.id)
            stream = await sdk.responses.create(model=CACHED, input="hi", background=True, stream=True)
            assert [event async for event in stream][-1].type == "response.completed"
            running = await sdk.responses.create(model=CACHED, input="x [[delay_ms=50]] [[words=500]]", background=True)
            assert (await sdk.responses.cancel(running.id)).status == "cancelled"
            await sdk.responses.delete(running.id)
            assert (await sdk.responses.create(model=CACHED, input="hi")).status == "completed"


async def test_azures_blocking_sdk_works_too(pollux: Replica) -> None:
    def call() -> str | None:
        with AzureOpenAI(azure_endpoint=pollux.url, api_key=ALICE, api_version="preview", max_retries=0) as sdk:
            job = sdk.responses.create(model=CACHED, input="hi", background=True)
            return sdk.responses.retrieve(job.id, extra_query={"wait": 20}).status

    assert await asyncio.to_thread(call) == "completed"


async def test_the_model_in_azures_path_goes_before_the_bodys(pollux: Replica, http: aiohttp.ClientSession) -> None:
    url = f"{pollux.url}/openai/deployments/{CACHED}/responses?api-version=2025-03-01-preview"
    for body in ({"input": "x", "background": True}, {"model": "other", "input": "x", "background": True}):
        created = await (await http.post(url, json=body)).json()
        assert (created["model"], created["status"]) == (CACHED, "queued")
        ended = await (await http.get(f"responses/{created['id']}?wait=20")).json()
        assert ended["status"] == "completed"
    refused = await refusal(await http.post(f"{pollux.url}/openai/deployments/unknown/responses", json={"input": "x"}))
    assert refused.fields[2] == "model_not_found"
