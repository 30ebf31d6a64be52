"""Vertex AI: Claude by its own API, others by the OpenAI-compatible one, with tokens of a service's account."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.clouds import TEXT, answering, demanding, google_account
from tests.support.replica import ALICE, MASTER_KEY, running_replica
from tests.support.tokens import Granting, running_granting, shown_to
from tests.support.upstreams import Upstream, running_script

Json = dict[str, Any]
PLACE = "/v1/projects/project-1/locations/us-east5"


@pytest.fixture
async def granting() -> AsyncIterator[Granting]:
    async with running_granting() as server:
        yield server


@pytest.fixture
async def google() -> AsyncIterator[Upstream]:
    models = answering(
        lambda request: "claude" if "/publishers/anthropic/" in request.path else "chat",
        lambda _, body: bool(body.get("stream")),
    )
    async with running_script(demanding("Bearer token-", models)) as server:
        yield server


def config(upstream: Upstream, account: Any, *models: str) -> Json:
    params = {"api_base": upstream.base_url, "vertex_credentials": account, "vertex_location": "us-east5"}
    return {
        "model_list": [
            {"model_name": model.rpartition("/")[2], "litellm_params": {"model": model, **params}} for model in models
        ],
        "litellm_settings": {
            "num_retries": 0,
            "responses": {"background_mode": {"polling_via_cache": "all", "ttl": 600}},
        },
        "general_settings": {"master_key": MASTER_KEY},
        "pollux": {"keys": [{"name": "alice", "key": ALICE}]},
    }


def text_of(response: Json) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


@pytest.mark.parametrize(
    ("model", "path", "stream_path", "named"),
    [
        (
            "vertex_ai/claude-sonnet-4-5@20250929",
            "/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict",
            "/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
            None,
        ),
        (
            "vertex_ai/gemini-2.5-pro",
            "/endpoints/openapi/chat/completions",
            "/endpoints/openapi/chat/completions",
            "google/gemini-2.5-pro",
        ),
        (
            "vertex_ai/mistral-large-2411",
            "/publishers/mistralai/models/mistral-large-2411:rawPredict",
            "/publishers/mistralai/models/mistral-large-2411:streamRawPredict",
            "mistral-large-2411",
        ),
    ],
)
async def test_a_model_of_vertex_serves_in_every_mode(
    model: str, path: str, stream_path: str, named: str | None, google: Upstream, granting: Granting, store_url: str
) -> None:
    account = google_account(granting.url)
    async with AsyncExitStack() as stack:
        given = config(google, account, model)
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        name = given["model_list"][0]["model_name"]
        proxied = await (await http.post("responses", json={"model": name, "input": "hi"})).json()
        assert text_of(proxied) == TEXT
        streamed = await http.post("responses", json={"model": name, "input": "hi", "stream": True})
        assert "response.completed" in await streamed.text()
        background = {"model": name, "input": "hi", "background": True}
        cached = await http.post("responses", json=background, headers={"Prefer": "wait=20"})
        assert text_of(await cached.json()) == TEXT
    assert [request.path_qs for request in google.requests] == [
        PLACE + path,
        PLACE + stream_path,
        PLACE + stream_path,
    ]
    assert [request.json.get("model") for request in google.requests] == [named] * 3
    versions = {request.json.get("anthropic_version") for request in google.requests}
    assert versions == ({"vertex-2023-10-16"} if named is None else {None})
    assert set(shown_to(google)) == {"Bearer token-1"}
    assert len(granting.asked) == 1


async def test_an_account_proves_itself_with_its_key(google: Upstream, granting: Granting, store_url: str) -> None:
    account = google_account(granting.url)
    async with AsyncExitStack() as stack:
        given = config(google, account, "vertex_ai/gemini-2.5-pro")
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        asked = (http.post("responses", json={"model": "gemini-2.5-pro", "input": "hi"}) for _ in range(5))
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    [form] = granting.forms
    head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in form["assertion"].split("."))
    assert json.loads(head)["kid"] == "k-1"
    assert json.loads(claims)["iss"] == "robot@project-1.example"
    assert json.loads(claims)["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    key = serialization.load_pem_private_key(account["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signed = form["assertion"].rpartition(".")[0].encode()
    key.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


async def test_an_account_that_is_refused_is_a_failure_that_may_pass(
    google: Upstream, granting: Granting, store_url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "account.json"
    file.write_text(json.dumps(google_account(granting.url)))
    granting.refuses = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    async with AsyncExitStack() as stack:
        given = config(google, str(file), "vertex_ai/gemini-2.5-pro")
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        answer = await http.post("responses", json={"model": "gemini-2.5-pro", "input": "hi"})
        assert (answer.status, (await answer.json())["error"]["code"]) == (502, "upstream_unavailable")
    told = [
        (record.getMessage(), vars(record)["error"])
        for record in caplog.records
        if "granted no access" in record.getMessage()
    ]
    assert told == [("Google, robot@project-1.example granted no access", "invalid_grant: Invalid JWT Signature.")]
    assert not google.requests
