"""Amazon Bedrock: Claude by InvokeModel, others by the OpenAI-compatible endpoint, with a key or with signatures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from tests.support.amazon import chunks, exception, is_signed
from tests.support.clouds import CHAT_ANSWER, CHAT_EVENTS, CLAUDE_ANSWER, CLAUDE_EVENTS, TEXT, sse
from tests.support.replica import ALICE, MASTER_KEY, running_replica
from tests.support.upstreams import Upstream, running_script

Json = dict[str, Any]
CLAUDE, GPT = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "openai.gpt-oss-120b-1:0"
KEYS = {"aws_access_key_id": "AKIA1", "aws_secret_access_key": "very-secret", "aws_region_name": "eu-west-1"}
STREAM = "application/vnd.amazon.eventstream"
INVOKE = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"
CHAT = "/openai/v1/chat/completions"


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "ROLE_ARN", "BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def bedrock(request: web.Request) -> web.StreamResponse:
    body = json.loads(await request.read())
    if request.path.endswith("/invoke-with-response-stream"):
        return web.Response(body=chunks(CLAUDE_EVENTS), content_type=STREAM)
    if request.path.endswith("/invoke"):
        return web.json_response(CLAUDE_ANSWER)
    if body.get("stream"):
        return web.Response(body=sse(CHAT_EVENTS, done=True), content_type="text/event-stream")
    return web.json_response(CHAT_ANSWER)


@pytest.fixture
async def amazon() -> AsyncIterator[Upstream]:
    async with running_script(bedrock) as server:
        yield server


def config(upstream: Upstream, model: str, **params: Any) -> Json:
    base = upstream.base_url.removesuffix("/v1")
    entry = {"model_name": "m", "litellm_params": {"model": f"bedrock/{model}", "api_base": base, **params}}
    return {
        "model_list": [entry],
        "litellm_settings": {
            "num_retries": 0,
            "responses": {"background_mode": {"polling_via_cache": "all", "ttl": 600}},
        },
        "router_settings": {"disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
        "pollux": {"keys": [{"name": "alice", "key": ALICE}]},
    }


def text_of(response: Json) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


@pytest.mark.parametrize("params", [KEYS, {"api_key": "bedrock-key"}], ids=["signed", "bearer"])
@pytest.mark.parametrize(
    ("model", "path", "stream_path"),
    [(CLAUDE, INVOKE, f"{INVOKE}-with-response-stream"), (GPT, CHAT, CHAT)],
    ids=["claude", "gpt"],
)
async def test_a_model_of_bedrock_serves_in_every_mode(
    model: str, path: str, stream_path: str, params: Json, amazon: Upstream, store_url: str
) -> None:
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(config(amazon, model, **params), store_url))
        http = await stack.enter_async_context(pollux.http())
        proxied = await (await http.post("responses", json={"model": "m", "input": "hi"})).json()
        assert text_of(proxied) == TEXT
        assert proxied["usage"]["output_tokens"] == 5
        streamed = await http.post("responses", json={"model": "m", "input": "hi", "stream": True})
        assert "response.completed" in await streamed.text()
        background = {"model": "m", "input": "hi", "background": True}
        cached = await http.post("responses", json=background, headers={"Prefer": "wait=20"})
        assert text_of(await cached.json()) == TEXT
    assert [request.path_qs for request in amazon.requests] == [path, stream_path, stream_path]
    for request in amazon.requests:
        if model == CLAUDE:
            assert request.json["anthropic_version"] == "bedrock-2023-05-31"
            assert request.json.keys().isdisjoint({"model", "stream"})
        else:
            assert request.json["model"] == GPT
        if params is KEYS:
            assert is_signed(request, "AKIA1", "very-secret", "eu-west-1")
        else:
            assert request.headers["Authorization"] == "Bearer bedrock-key"


async def test_a_large_request_and_temporary_keys_are_signed_too(amazon: Upstream, store_url: str) -> None:
    async with AsyncExitStack() as stack:
        given = config(amazon, GPT, **KEYS, aws_session_token="temporary")
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        answer = await http.post("responses", json={"model": "m", "input": "long " * 200_000})
        assert answer.status == 200
    [request] = amazon.requests
    assert is_signed(request, "AKIA1", "very-secret", "eu-west-1")
    assert request.headers["X-Amz-Security-Token"] == "temporary"
    assert "x-amz-security-token" in request.headers["Authorization"]


async def test_a_role_is_assumed_once(amazon: Upstream, store_url: str) -> None:
    async def sts(_request: web.Request) -> web.StreamResponse:
        ends = datetime.now(UTC) + timedelta(hours=1)
        text = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
            <AccessKeyId>ASIA2</AccessKeyId><SecretAccessKey>assumed-secret</SecretAccessKey>
            <SessionToken>assumed-token</SessionToken><Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration>
            </Credentials></AssumeRoleResult></AssumeRoleResponse>"""
        return web.Response(text=text, content_type="text/xml")

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_script(sts))
        role = {"aws_role_name": "arn:aws:iam::1:role/r", "aws_session_name": "session", "aws_external_id": "external"}
        given = config(amazon, GPT, **KEYS, **role, aws_sts_endpoint=server.base_url.removesuffix("/v1"))
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        for _ in range(3):
            assert (await http.post("responses", json={"model": "m", "input": "hi"})).status == 200
    [asked] = server.requests
    form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
    assert (form["RoleArn"], form["RoleSessionName"], form["ExternalId"]) == (
        "arn:aws:iam::1:role/r",
        "session",
        "external",
    )
    assert all(is_signed(request, "ASIA2", "assumed-secret", "eu-west-1") for request in amazon.requests)
    assert {request.headers["X-Amz-Security-Token"] for request in amazon.requests} == {"assumed-token"}


async def test_a_refused_role_is_a_failure_that_may_pass(
    amazon: Upstream, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def sts(_request: web.Request) -> web.StreamResponse:
        text = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>"
        return web.Response(status=403, text=text, content_type="text/xml")

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_script(sts))
        endpoint = server.base_url.removesuffix("/v1")
        given = config(amazon, GPT, **KEYS, aws_role_name="arn:aws:iam::1:role/r", aws_sts_endpoint=endpoint)
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        answer = await http.post("responses", json={"model": "m", "input": "hi"})
        assert (answer.status, (await answer.json())["error"]["code"]) == (502, "upstream_unavailable")
    assert not amazon.requests
    [told] = [record for record in caplog.records if "granted no access" in record.getMessage()]
    assert told.getMessage() == "Amazon, role arn:aws:iam::1:role/r granted no access"
    assert "AccessDenied" in vars(told)["error"]


async def test_without_any_keys_it_says_what_to_set(
    amazon: Upstream, store_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/there/is/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/there/is/none")
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(config(amazon, GPT), store_url))
        http = await stack.enter_async_context(pollux.http())
        assert (await http.post("responses", json={"model": "m", "input": "hi"})).status == 502
    assert "botocore finds no keys here" in str([vars(record).get("error") for record in caplog.records])


@pytest.mark.parametrize(
    ("kind", "passes"),
    [("throttlingException", True), ("internalServerException", True), ("validationException", False)],
)
async def test_an_exception_within_a_stream_is_the_providers_error(kind: str, passes: bool, store_url: str) -> None:
    bodies = [chunks(CLAUDE_EVENTS[:1]) + exception(kind, "so it is"), chunks(CLAUDE_EVENTS)]

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=bodies.pop(0), content_type=STREAM)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_script(handler))
        given = config(server, CLAUDE, **KEYS, num_retries=1)
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        background = {"model": "m", "input": "hi", "background": True}
        answer = await http.post("responses", json=background, headers={"Prefer": "wait=20"})
        ended = await answer.json()
        if passes:
            assert text_of(ended) == TEXT
        else:
            assert ended["status"] == "failed"
            assert "so it is" in ended["error"]["message"]
    assert len(bodies) == (0 if passes else 1)


async def test_a_damaged_stream_is_a_broken_connection(store_url: str) -> None:
    whole = chunks(CLAUDE_EVENTS)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    bodies = [bytes(damaged), whole[: len(whole) // 2], whole]

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=bodies.pop(0), content_type=STREAM)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_script(handler))
        pollux = await stack.enter_async_context(running_replica(config(server, CLAUDE, **KEYS), store_url))
        http = await stack.enter_async_context(pollux.http())
        background = {"model": "m", "input": "hi", "background": True}
        ends = []
        while bodies:
            answer = await http.post("responses", json=background, headers={"Prefer": "wait=20"})
            ends.append((await answer.json())["status"])
        assert ends == ["failed", "failed", "completed"]


async def test_trials_are_named_in_the_body(amazon: Upstream, store_url: str) -> None:
    async with AsyncExitStack() as stack:
        given = config(amazon, CLAUDE, **KEYS, extra_headers={"anthropic-beta": "context-1m-2025-08-07, other"})
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        assert (await http.post("responses", json={"model": "m", "input": "hi"})).status == 200
    assert amazon.requests[0].json["anthropic_beta"] == ["context-1m-2025-08-07", "other"]
