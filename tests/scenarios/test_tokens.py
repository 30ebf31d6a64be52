"""Deployments whose credential is a token: it is asked for when it is needed, shared, renewed, and shown nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from tests.support.replica import ALICE, MASTER_KEY, running_replica
from tests.support.tokens import Granting, running_granting, shown_to
from tests.support.upstreams import Upstream, running_script
from tests.support.waiting import wait_until

Json = dict[str, Any]
ANSWER = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt",
    "output": [],
    "created_at": 1,
}
APPLICATION = {"tenant_id": "tenant-1", "client_id": "client-1", "client_secret": "very-secret"}


def config(upstream: str, **params: Any) -> Json:
    entry = {"model_name": "m", "litellm_params": {"model": "azure/gpt", "api_base": upstream, **params}}
    return {
        "model_list": [entry],
        "litellm_settings": {"num_retries": 0},
        "router_settings": {"disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
        "pollux": {"keys": [{"name": "alice", "key": ALICE}]},
    }


@pytest.fixture
async def granting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Granting]:
    async with running_granting() as server:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
        yield server


@pytest.fixture
async def azure() -> AsyncIterator[Upstream]:
    async def handler(request: web.Request) -> web.StreamResponse:
        if not request.headers.get("Authorization", "").startswith("Bearer token-"):
            return web.json_response({"error": {"message": "who are you?"}}, status=401)
        return web.json_response(ANSWER)

    async with running_script(handler) as server:
        yield server


async def test_an_application_shows_the_token_that_its_tenant_grants(
    azure: Upstream, granting: Granting, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(config(azure.base_url, **APPLICATION), store_url))
        http = await stack.enter_async_context(pollux.http())
        answers = await asyncio.gather(*(http.post("responses", json={"model": "m", "input": "hi"}) for _ in range(8)))
        assert {answer.status for answer in answers} == {200}
    assert len(granting.asked) == 1, "they share it"
    assert (granting.asked[0].method, granting.asked[0].path_qs) == ("POST", "/tenant-1/oauth2/v2.0/token")
    assert granting.forms[0] == {
        "grant_type": "client_credentials",
        "client_id": "client-1",
        "client_secret": "very-secret",
        "scope": "https://cognitiveservices.azure.com/.default",
    }
    assert set(shown_to(azure)) == {"Bearer token-1"}
    assert "api-key" not in azure.requests[0].headers
    assert "very-secret" not in caplog.text
    assert "token-1" not in caplog.text


async def test_a_refused_application_is_a_failure_that_may_pass(
    azure: Upstream, granting: Granting, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1"
    granting.refuses = {"error": "invalid_client", "error_description": said}
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(config(azure.base_url, **APPLICATION), store_url))
        http = await stack.enter_async_context(pollux.http())
        answer = await http.post("responses", json={"model": "m", "input": "hi"})
        assert answer.status == 502
        error = (await answer.json())["error"]
        assert error["code"] == "upstream_unavailable"
        assert "AADSTS" not in error["message"]
        assert not azure.requests
        told = [vars(record)["error"] for record in caplog.records if "granted no access" in record.getMessage()]
        assert told == ["status 401: invalid_client AADSTS7000215: Invalid client secret provided."]
        granting.refuses = None
        assert (await http.post("responses", json={"model": "m", "input": "hi"})).status == 200


async def test_a_failed_renewal_is_tried_again_within_the_request(
    azure: Upstream, granting: Granting, store_url: str
) -> None:
    given = config(azure.base_url, **APPLICATION)
    given["litellm_settings"]["num_retries"] = 5
    granting.refuses = {"error": "temporarily_unavailable"}
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(given, store_url))
        http = await stack.enter_async_context(pollux.http())
        asking = asyncio.create_task(http.post("responses", json={"model": "m", "input": "hi"}))
        await wait_until(lambda: len(granting.asked) > 0, what="the tenant is asked")
        granting.refuses = None
        assert (await asking).status == 200
    assert len(granting.asked) > 1


async def test_a_token_that_was_revoked_is_replaced(
    granting: Granting, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.upstream.grants.YOUNG_S", 0.0)
    revoked = set[str]()

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] in revoked:
            return web.json_response({"error": {"message": "revoked"}}, status=401)
        return web.json_response(ANSWER)

    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(running_script(handler))
        pollux = await stack.enter_async_context(running_replica(config(azure.base_url, **APPLICATION), store_url))
        http = await stack.enter_async_context(pollux.http())

        async def status() -> int:
            return (await http.post("responses", json={"model": "m", "input": "hi"})).status

        assert await status() == 200
        revoked.add("Bearer token-1")
        assert [await status(), await status()] == [401, 200]
    assert shown_to(azure) == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
