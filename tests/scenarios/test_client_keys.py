"""Clients' own keys: sent to providers that decide by them, kept encrypted for as long as a run needs them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import redis
from aiohttp import web

from server.errors import Forbidden
from server.keyring import ClientKey
from server.protocol.ids import CompositeId, encode_composite
from server.upstream.call import Call
from tests.support.keys import contents
from tests.support.refusals import refusal
from tests.support.replica import (
    ALICE,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    ended,
    make_config,
    replica_process,
    running_replica,
)
from tests.support.upstreams import Upstream, running_script, seen_by
from tests.support.waiting import wait_until

Json = dict[str, Any]

ONE, TWO = "sk-virtual-one-1a2b3c4d5e", "sk-virtual-two-6f7a8b9c0d"
"""Keys that only the provider knows."""
BAD = "sk-virtual-bad-0000111122"
OURS = "sk-upstream-secret"
SHUT = "for-configured-keys"
WAIT = {"Prefer": "wait=20"}


def config(upstream: str, *, model: str = "litellm_proxy/m", **pollux: Any) -> Json:
    """The models of `make_config` forward keys; one more model does not."""
    made = make_config(upstream, accept_any_key=True, **{"id_secrets": ["a secret of the config"], **pollux})
    for entry in made["model_list"]:
        entry["litellm_params"]["model"] = model
        entry["model_info"] = {"forward_client_key": True}
    made["model_list"].append(
        {"model_name": SHUT, "litellm_params": {"model": "openai/m", "api_base": upstream, "api_key": OURS}}
    )
    made["litellm_settings"]["responses"]["background_mode"]["polling_via_cache"] = "all"
    return made


@pytest.fixture
async def pollux(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(config(simulator), store_url) as replica:
        yield replica


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def keys_seen(simulator: str) -> list[list[str]]:
    """The hashes of all keys in each request."""
    return [request["key_sha256"] for request in (await seen_by(simulator))["requests"]]


async def make(http: aiohttp.ClientSession, model: str = CACHED, text: str = "Hi", **body: Any) -> Json:
    answer = await http.post("responses", json={"model": model, "input": text, **body}, headers=WAIT)
    made: Json = await answer.json()
    assert answer.status == 200, made
    return made


async def in_all_ways(http: aiohttp.ClientSession) -> list[Json]:
    """A proxied, a cached and a native response."""
    made = [await make(http), await make(http, background=True), await make(http, NATIVE, background=True)]
    assert [one["status"] for one in made] == ["completed"] * 3
    return made


@pytest.mark.parametrize(
    ("model", "header"),
    [
        ("litellm_proxy/m", "authorization"),
        ("openai/m", "authorization"),
        ("azure/m", "api-key"),
        ("anthropic/claude-sonnet-4-5", "x-api-key"),
        ("groq/m", "authorization"),
    ],
)
async def test_the_provider_gets_the_clients_key_and_no_other(
    model: str, header: str, simulator: str, store_url: str
) -> None:
    async with AsyncExitStack() as stack:
        settings = config(simulator, model=model)
        for entry in settings["model_list"]:
            entry["litellm_params"]["extra_headers"] = {"X-Api-Key": OURS, "authorization": OURS, "API-key": OURS}
        pollux = await stack.enter_async_context(running_replica(settings, store_url))
        http = await stack.enter_async_context(pollux.http(ONE))
        made = [await make(http), await make(http, background=True)]
        assert [one["status"] for one in made] == ["completed"] * 2
        async with pollux.client(ONE) as sdk:
            await sdk.responses.input_tokens.count(model=CACHED, input="x") if "groq" not in model else None
        seen = (await seen_by(simulator))["requests"]
        assert len(seen) >= 2
        assert {tuple(request["key_headers"]) for request in seen} == {(header,)}
        assert {tuple(request["key_sha256"]) for request in seen} == {(digest(ONE),)}


async def test_two_clients_with_two_keys_know_nothing_of_each_other(simulator: str, pollux: Replica) -> None:
    async with AsyncExitStack() as stack:
        one, two, master = [await stack.enter_async_context(pollux.http(key)) for key in (ONE, TWO, MASTER_KEY)]
        made = await in_all_ways(one)
        for response in made:
            for asked in (two.get, two.delete):
                assert (await asked(f"responses/{response['id']}")).status == 404
            assert (await two.post(f"responses/{response['id']}/cancel")).status == 404
            body = {"model": CACHED, "input": "x", "previous_response_id": response["id"]}
            assert (await two.post("responses", json=body)).status == 400
            assert (await one.get(f"responses/{response['id']}")).status == 200
            assert (await master.get(f"responses/{response['id']}")).status == 200
        assert (await (await two.get("responses")).json())["data"] == []
        assert [item["id"] for item in (await (await one.get("responses")).json())["data"]] == [made[1]["id"]]
        await in_all_ways(two)
        of_the_master = digest(OURS)
        assert {key for keys in await keys_seen(simulator) for key in keys} == {digest(ONE), digest(TWO), of_the_master}


async def test_an_owner_is_the_same_on_every_replica_and_after_a_change_of_the_secrets(
    simulator: str, store_url: str
) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_replica(config(simulator), store_url))
        other = config(simulator, id_secrets=["another", "a secret of the config"])
        second = await stack.enter_async_context(running_replica(other, store_url))
        async with first.http(ONE) as http:
            made = await in_all_ways(http)
        async with second.http(ONE) as http:
            for response in made:
                assert (await http.get(f"responses/{response['id']}")).status == 200


async def test_a_request_without_a_key_is_refused(simulator: str, pollux: Replica) -> None:
    for headers in ({}, {"Authorization": "Bearer "}, {"api-key": ""}, {"api-key": "ключ"}):
        async with aiohttp.ClientSession(f"{pollux.url}/v1/", headers=headers) as http:
            answer = await refusal(await http.post("responses", json={"model": CACHED, "input": "x"}))
            assert (answer.status, answer.code) == (401, "invalid_api_key")
    assert await keys_seen(simulator) == []


async def test_keys_of_the_config_and_the_master_key_work_as_before(simulator: str, pollux: Replica) -> None:
    async with pollux.http(ALICE) as alice, pollux.http(MASTER_KEY) as master:
        await in_all_ways(alice)
        assert {key for keys in await keys_seen(simulator) for key in keys} == {digest(ALICE)}
        await make(alice, SHUT)
        assert (await keys_seen(simulator))[-1] == [digest(OURS)]
        await make(master)
        assert (await keys_seen(simulator))[-1] == [digest(OURS)], "the master key is nobody else's to know"


async def test_guests_are_not_served_with_a_key_of_ours(simulator: str, store_url: str) -> None:
    async with AsyncExitStack() as stack:
        open_ = config(simulator, accept_untagged_ids=True)
        pollux = await stack.enter_async_context(running_replica(open_, store_url))
        http = await stack.enter_async_context(pollux.http(ONE))
        for background in (True, False):
            for stream in (True, False):
                body = {"model": SHUT, "input": "x", "background": background, "stream": stream}
                answer = await refusal(await http.post("responses", json=body))
                assert answer.fields == (403, "invalid_request_error", "key_not_configured", None)
        for path in ("responses/input_tokens", "responses/compact"):
            assert (await http.post(path, json={"model": SHUT, "input": "x"})).status == 403
        models = (await (await http.get("models")).json())["data"]
        assert {model["id"] for model in models} == {CACHED, NATIVE}
        assert (await http.get(f"models/{SHUT}")).status == 404
        # An id without an owner, as LiteLLM gives them, at a deployment that has a key of ours.
        assert pollux.context is not None
        [shut] = pollux.context.deployments.serving(SHUT)
        untagged = encode_composite(CompositeId("openai", shut.id, "resp_0123456789"))
        for method in ("GET", "DELETE"):
            assert (await http.request(method, f"responses/{untagged}")).status == 404
        # Wherever a call comes from: the last door is shut too.
        call = Call("GET", ("resp_0123456789",), key=ClientKey(ONE, "key-0123456789abcdef"))
        with pytest.raises(Forbidden):
            async with pollux.context.upstream.open(shut, call):
                pass
        assert await keys_seen(simulator) == []


async def test_guests_have_no_webhooks(pollux: Replica, simulator: str, store_url: str) -> None:
    async with pollux.http(ONE) as http:
        body = {"name": "n", "url": "https://example.com", "event_types": ["response.completed"]}
        answer = await refusal(await http.post("webhook_endpoints", json=body))
        assert (answer.status, answer.code) == (403, "key_not_configured")
    async with AsyncExitStack() as stack:
        allowing = config(simulator, webhook_per_request=True)
        replica = await stack.enter_async_context(running_replica(allowing, store_url))
        http = await stack.enter_async_context(replica.http(ONE))
        asked = {"model": CACHED, "input": "x", "background": True, "webhook": {"url": "https://example.com"}}
        assert (await refusal(await http.post("responses", json=asked))).status == 403


# What the provider says of a key.


def strict_provider(*, with_events: bool = False) -> Any:
    """A LiteLLM proxy that knows two keys. It repeats a refused one, and its hash."""

    async def handler(request: web.Request) -> web.StreamResponse:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        body = await request.json()
        if key not in (ONE, TWO):
            message = f"Authentication Error, Invalid proxy server token passed. Received = {key}, {digest(key)}"
            error = {"message": message, "type": "token_not_found_in_db", "param": "key", "code": "401"}
            if not with_events:
                return web.json_response({"error": error}, status=401)
            event = f'event: error\ndata: {{"type":"error","message":"no such key: {key}","code":"401"}}\n\n'
            return web.Response(text=event, content_type="text/event-stream")
        made: Json = {"id": "resp_0123456789abcdef", "object": "response", "status": "completed", "output": []}
        if not body.get("stream"):
            return web.json_response(made)
        told = '{"type":"response.completed","response":{"id":"resp_1","object":"response","status":"completed"}}'
        return web.Response(text=f"event: response.completed\ndata: {told}\n\n", content_type="text/event-stream")

    return handler


@pytest.fixture
async def strict() -> AsyncIterator[Upstream]:
    async with running_script(strict_provider()) as upstream:
        yield upstream


async def test_a_key_that_the_provider_refuses_is_refused_in_its_words_and_harms_nobody_else(
    strict: Upstream, store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(config(strict.base_url), store_url))
        bad, good = [await stack.enter_async_context(pollux.http(key)) for key in (BAD, ONE)]
        for stream in (True, False):
            answer = await refusal(await bad.post("responses", json={"model": CACHED, "input": "x", "stream": stream}))
            assert (answer.status, answer.type, answer.code) == (401, "token_not_found_in_db", "401")
            assert "Invalid proxy server token" in answer.message
            assert BAD not in answer.message
            assert digest(BAD) not in answer.message
        failed = await make(bad, background=True)
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "401"
        assert "Invalid proxy server token" in failed["error"]["message"]
        everything = f"{caplog.text} {contents(admin)} {failed}"
        assert BAD not in everything
        assert digest(BAD) not in everything
        assert pollux.context is not None
        [deployment] = pollux.context.deployments.serving(CACHED)
        assert pollux.context.upstream.health.is_healthy(deployment)
        assert (await make(good))["status"] == "completed"
        assert (await make(good, background=True))["status"] == "completed"


async def test_a_key_is_hidden_in_whatever_the_provider_says(
    store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_script(strict_provider(with_events=True)))
        pollux = await stack.enter_async_context(running_replica(config(upstream.base_url), store_url))
        http = await stack.enter_async_context(pollux.http("a-key-without-a-form"))
        failed = await make(http, background=True)
        assert failed["status"] == "failed"
        assert failed["error"]["message"].startswith("no such key: ")
        answer = await http.post("responses", json={"model": CACHED, "input": "x", "stream": True})
        told = f"{failed} {await answer.text()} {caplog.text} {contents(admin)}"
        assert "a-key-without-a-form" not in told


async def test_a_refusal_of_our_own_key_is_told_as_before(strict: Upstream, store_url: str) -> None:
    async with running_replica(config(strict.base_url), store_url) as pollux, pollux.http(MASTER_KEY) as http:
        answer = await refusal(await http.post("responses", json={"model": CACHED, "input": "x"}))
        assert (answer.status, answer.code) == (401, "upstream_authentication")


# Runs that outlive the request, and the process.

SLOW = "Never stop [[words=4000]] [[delay_ms=20]]"


def sealed_in(admin: redis.Redis) -> list[bytes]:
    """The sealed keys of all records."""
    return [sealed for key in admin.scan_iter("*:record:*") if (sealed := admin.hget(key, "client_key")) is not None]  # type: ignore[misc]


async def test_a_run_that_another_replica_takes_over_goes_on_with_the_clients_key(
    simulator: str, store_url: str, admin: redis.Redis, tmp_path: Path
) -> None:
    settings = config(simulator, lease_s=1, log_format="json")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(replica_process(settings, store_url, tmp_path))
        async with first.http(ONE) as http:
            body = {"model": CACHED, "input": "Hi [[words=60]] [[delay_ms=50]]", "background": True}
            made = await (await http.post("responses", json=body)).json()
            answer = await http.get(f"responses/{made['id']}")
            while not (await answer.json())["output"]:
                query = {"wait": "20", "after": answer.headers["ETag"]}
                answer = await http.get(f"responses/{made['id']}", params=query)
        assert len(sealed_in(admin)) == 1
        assert ONE not in str(contents(admin))
        await first.kill()
        second = await stack.enter_async_context(replica_process(settings, store_url, tmp_path))
        http = await stack.enter_async_context(second.http(ONE))
        assert (await ended(http, made["id"]))["status"] == "completed"
        assert await keys_seen(simulator) == [[digest(ONE)]] * 2
        assert sealed_in(admin) == []
    told = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert made["id"] in told
    for secret in (ONE, digest(ONE)):
        assert secret not in f"{told} {contents(admin)}"


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_the_step_that_ends_a_run_removes_its_key(
    end: str, pollux: Replica, admin: redis.Redis, simulator: str
) -> None:
    async with pollux.http(ONE) as http:
        body = {"model": CACHED, "input": SLOW, "background": True}
        made = await (await http.post("responses", json=body)).json()
        assert len(sealed_in(admin)) == 1
        path = f"responses/{made['id']}"
        await (http.post(f"{path}/cancel") if end == "cancel" else http.delete(path))
        assert sealed_in(admin) == []

    async def is_idle() -> bool:
        return bool((await seen_by(simulator))["open"] == 0)

    await wait_until(is_idle, what="the run has stopped")


async def test_a_key_that_can_no_longer_be_read_fails_the_run_and_no_other_key_is_used(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with AsyncExitStack() as stack:
        queueing = await stack.enter_async_context(running_replica(config(simulator, worker_concurrency=0), store_url))
        ids = {}
        for key in (ONE, ALICE):
            async with queueing.http(key) as http:
                body = {"model": CACHED, "input": "x", "background": True}
                ids[key] = (await (await http.post("responses", json=body)).json())["id"]
        lost = await stack.enter_async_context(running_replica(config(simulator, id_secrets=["another"]), store_url))
        for key, response_id in ids.items():
            async with lost.http(key) as http:
                failed = await ended(http, response_id)
                assert failed["status"] == "failed"
                assert "can't be read any more: id_secrets were changed" in failed["error"]["message"]
        assert await keys_seen(simulator) == []
        assert sealed_in(admin) == []


async def test_a_guests_job_whose_key_is_gone_is_not_run_with_ours(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with AsyncExitStack() as stack:
        queueing = await stack.enter_async_context(running_replica(config(simulator, worker_concurrency=0), store_url))
        http = await stack.enter_async_context(queueing.http(ONE))
        body = {"model": CACHED, "input": "x", "background": True}
        made = await (await http.post("responses", json=body)).json()
        for key in admin.scan_iter("*:record:*"):
            admin.hdel(key, "client_key")
        await stack.enter_async_context(running_replica(config(simulator), store_url))
        assert (await ended(http, made["id"]))["status"] == "failed"
        assert await keys_seen(simulator) == []


async def test_where_keys_are_not_forwarded_none_is_kept(
    simulator: str, store_url: str, admin: redis.Redis, pollux: Replica
) -> None:
    async with pollux.http(ALICE) as http:
        for model in (SHUT, CACHED):
            body = {"model": model, "input": SLOW, "background": True}
            made = await (await http.post("responses", json=body)).json()
            assert len(sealed_in(admin)) == (model == CACHED)
            await http.post(f"responses/{made['id']}/cancel")


async def test_without_accept_any_key_an_unknown_key_is_refused_as_ever(simulator: str, store_url: str) -> None:
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(
            running_replica(config(simulator) | {"pollux": make_config(simulator)["pollux"]}, store_url)
        )
        sdk = await stack.enter_async_context(pollux.client(ONE))
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
            await sdk.responses.create(model=CACHED, input="x")
        alice = await stack.enter_async_context(pollux.http(ALICE))
        await make(alice)
        assert await keys_seen(simulator) == [[digest(ALICE)]]
