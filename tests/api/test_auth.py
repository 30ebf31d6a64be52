"""Keys and ownership over public HTTP: who is let in, what they may use, and what they may see."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from openai import AuthenticationError

from server.api.routes.table import PREFIXES, PROBES, ROUTES
from server.config import parse_config
from server.config.sections import ConfigError
from server.keyring import check_exposure
from server.protocol.ids import CompositeId, decode_composite, encode_composite, owner_tag
from tests.support.obliging import obliging
from tests.support.refusals import SECRETS, UPSTREAM_KEY, refusal
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    create,
    make_config,
    running_replica,
)
from tests.support.upstreams import Upstream, running_script

ALICE_TOO = "sk-test-alice-3333"
CAROL = "sk-test-carol-4444"
ALIAS = "the-best-there-is"
POLLING_ID = "litellm_poll_00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_script(obliging()) as running:
        yield running


@asynccontextmanager
async def serving(upstream: Upstream, store_url: str, **pollux: Any) -> AsyncIterator[Replica]:
    async with running_replica(make_config(upstream.base_url, **pollux), store_url) as replica:
        yield replica


@pytest.fixture
async def pollux(upstream: Upstream, store_url: str) -> AsyncIterator[Replica]:
    async with serving(upstream, store_url) as replica:
        yield replica


def keys(*entries: tuple[str, str, list[str] | None]) -> dict[str, Any]:
    return {"keys": [{"name": name, "key": key, "models": models} for name, key, models in entries]}


async def made(pollux: Replica, key: str, *, cached: bool, **body: Any) -> str:
    """Create a response, cached or else proxied, and return its id when it is complete."""
    async with pollux.http(key) as http:
        answer = await http.post("responses", json={"model": CACHED, "input": "x", "background": cached, **body})
        assert answer.status == 200, await answer.text()
        response_id: str = (await answer.json())["id"]
        assert await status_of(http, response_id) == 200
        return response_id


async def status_of(http: aiohttp.ClientSession, response_id: str) -> int:
    return (await http.get(f"responses/{quote(response_id, safe='')}?wait=20")).status


# Who is let in.


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer  {ALICE}"},
        {"api-key": ALICE},
        {"x-litellm-api-key": ALICE},
        {"x-litellm-api-key": f"Bearer {ALICE}"},
        {"x-api-key": ALICE},
    ],
)
async def test_a_key_may_come_in_any_of_four_headers(headers: dict[str, str], pollux: Replica) -> None:
    hers = await made(pollux, ALICE, cached=True)
    async with pollux.http(key=None) as http:
        assert (await http.get(f"responses/{hers}", headers=headers)).status == 200


async def test_of_several_keys_the_first_header_in_order_counts(pollux: Replica) -> None:
    hers = await made(pollux, ALICE, cached=True)
    order = ["Authorization", "api-key", "x-litellm-api-key", "x-api-key"]
    async with pollux.http(key=None) as http:
        for first, name in enumerate(order):
            others = dict.fromkeys(order[first + 1 :], BOB)
            good = {name: f"Bearer {ALICE}" if name == "Authorization" else ALICE}
            assert (await http.get(f"responses/{hers}", headers={**others, **good})).status == 200
            bad = {name: "Bearer wrong" if name == "Authorization" else "wrong"}
            assert (await http.get(f"responses/{hers}", headers={**dict.fromkeys(others, ALICE), **bad})).status == 401


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Authorization": "Bearer sk-mistyped-and-secret-3f2a"}, "Incorrect API key provided: sk-…3f2a."),
        ({"api-key": "sk-mistyped-and-secret-3f2a"}, "Incorrect API key provided: sk-…3f2a."),
        ({"x-api-key": f"{ALICE}x"}, "Incorrect API key provided: sk-…111x."),
        ({"x-api-key": ALICE[:-1]}, "Incorrect API key provided: sk-…-111."),
        ({"Authorization": "Bearer short"}, "Incorrect API key provided: …."),
        ({"Authorization": "Bearer sk-ключ-ключ-ключ"}, "Incorrect API key provided: sk-…????."),
    ],
)
async def test_a_wrong_key_is_refused_and_shown_masked(headers: dict[str, str], message: str, pollux: Replica) -> None:
    async with pollux.http(key=None) as http:
        answer = await refusal(await http.get("models", headers=headers))
        assert answer.fields == (401, "invalid_request_error", "invalid_api_key", None)
        assert answer.message == message


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": f"Basic {ALICE}"}, {"Authorization": ALICE}, {"Authorization": "Bearer"}, {"api-key": ""}],
)
async def test_a_missing_key_is_told_how_to_come(headers: dict[str, str], pollux: Replica) -> None:
    async with pollux.http(key=None) as http:
        answer = await refusal(await http.get("models", headers=headers))
        assert answer.fields == (401, "invalid_request_error", "invalid_api_key", None)
        assert answer.message.startswith("You didn't provide an API key. Send it in the header Authorization: Bearer")


async def test_a_key_in_the_query_or_the_body_lets_nobody_in(pollux: Replica) -> None:
    async with pollux.http(key=None) as http:
        for query in (f"api_key={ALICE}", f"api-key={ALICE}", f"Authorization=Bearer%20{ALICE}"):
            body = {"model": CACHED, "input": "x", "api_key": ALICE}
            assert (await refusal(await http.post(f"responses?{query}", json=body))).status == 401


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_every_route_asks_for_a_key(prefix: str, pollux: Replica) -> None:
    async with aiohttp.ClientSession(pollux.url) as http:
        for row in ROUTES:
            method, path = row.method, prefix + re.sub(r"\{[^{}]*\}", "x", row.path)
            assert (await refusal(await http.request(method, path))).status == 401, path
            assert (await refusal(await http.request(method, path, data=b"not JSON"))).status == 401, path
            async with http.request(method, path, headers={"api-key": ALICE}) as with_key:
                assert with_key.status not in (401, 405, 500), path


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/responses/x/y", "/v1/chat/completions"])
async def test_what_there_is_not_is_told_only_to_who_has_a_key(path: str, pollux: Replica) -> None:
    async with aiohttp.ClientSession(pollux.url) as http:
        for method in ("GET", "POST", "PUT"):
            assert (await refusal(await http.request(method, path))).status == 401
            assert (await refusal(await http.request(method, path, headers={"api-key": ALICE}))).status in (404, 405)


async def test_only_the_operations_ask_for_no_key(pollux: Replica) -> None:
    paths = {row.path for row in PROBES} - {"/metrics"}
    assert paths == {"/livez", "/readyz", "/health/liveliness", "/health/liveness", "/health/readiness"}
    async with aiohttp.ClientSession(pollux.url) as http:
        for path in paths:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                answer = await http.get(path, headers=headers)
                assert answer.status == 200
                assert await answer.json() == {"status": "ok"}
                assert answer.headers["X-Request-Id"]


# What they may see.


def uses(response_id: str) -> list[tuple[str, str]]:
    path = f"responses/{quote(response_id, safe='')}"
    return [
        ("GET", path),
        ("GET", f"{path}?stream=true"),
        ("GET", f"{path}?wait=20"),
        ("GET", f"{path}/input_items"),
        ("POST", f"{path}/cancel"),
        ("DELETE", path),
    ]


@pytest.mark.parametrize("cached", [True, False])
async def test_strangers_get_404_for_everything_that_can_be_done_with_a_response(
    cached: bool, pollux: Replica, upstream: Upstream
) -> None:
    hers = await made(pollux, ALICE, cached=cached)
    asked = len(upstream.requests)
    async with pollux.http(BOB) as bob, pollux.http(ALICE) as alice:
        for method, path in uses(hers):
            answer = await refusal(await bob.request(method, path))
            assert answer.fields == (404, "invalid_request_error", None, None)
            assert answer.message.startswith("Response with id '")
        body = {"model": CACHED, "input": "x", "previous_response_id": hers}
        for background in (True, False):
            answer = await refusal(await bob.post("responses", json={**body, "background": background}))
            assert (answer.status, answer.code) == (400, "previous_response_not_found")
        assert (await (await bob.get("responses")).json())["data"] == []
        assert (await refusal(await bob.get(f"responses?after={quote(hers, safe='')}"))).status == 400
        assert len(upstream.requests) == asked, "the provider hears nothing of it"
        assert await status_of(alice, hers) == 200, "and it is still there"
        assert (await alice.post("responses", json=body)).status == 200


async def test_a_stranger_can_not_tell_what_exists_from_what_does_not(pollux: Replica) -> None:
    hers = await made(pollux, ALICE, cached=True)
    async with pollux.http(BOB) as bob:
        for (method, path), (_, unknown) in zip(uses(hers), uses(POLLING_ID), strict=True):
            one, other = await bob.request(method, path), await bob.request(method, unknown)
            assert one.status == other.status
            assert (await one.text()).replace(hers, POLLING_ID) == await other.text()
            assert set(one.headers) == set(other.headers)


@pytest.mark.parametrize("cached", [True, False])
async def test_the_master_sees_all_and_nobody_sees_the_masters(cached: bool, pollux: Replica) -> None:
    hers = await made(pollux, ALICE, cached=cached)
    masters = await made(pollux, MASTER_KEY, cached=cached)
    async with pollux.http(MASTER_KEY) as master, pollux.http(ALICE) as alice:
        assert await status_of(alice, masters) == 404
        body = {"model": CACHED, "input": "x", "previous_response_id": hers}
        assert (await master.post("responses", json=body)).status == 200
        for method, path in uses(hers):
            if "stream" not in path and "cancel" not in path:
                answer = await master.request(method, path)
                assert answer.status == 200
                if method == "GET" and "input_items" not in path:
                    assert (await answer.json())["id"] == hers, "the id is the same for everybody"


@pytest.mark.parametrize("cached", [True, False])
async def test_keys_of_the_same_name_share_their_responses(cached: bool, upstream: Upstream, store_url: str) -> None:
    several = keys(("alice", ALICE, None), ("alice", ALICE_TOO, None), ("bob", BOB, None))
    async with serving(upstream, store_url, **several) as pollux:
        hers = await made(pollux, ALICE, cached=cached)
        async with pollux.http(ALICE_TOO) as alice, pollux.http(BOB) as bob:
            assert await status_of(alice, hers) == 200
            assert await status_of(bob, hers) == 404


@pytest.mark.parametrize("cached", [True, False])
async def test_a_key_that_was_replaced_leaves_its_responses_to_its_name(
    cached: bool, upstream: Upstream, store_url: str
) -> None:
    async with serving(upstream, store_url, **keys(("alice", ALICE, None))) as pollux:
        hers = await made(pollux, ALICE, cached=cached)
    async with (
        serving(upstream, store_url, **keys(("alice", ALICE_TOO, None), ("bob", ALICE, None))) as pollux,
        pollux.http(ALICE_TOO) as alice,
        pollux.http(ALICE) as somebody_else,
    ):
        assert await status_of(alice, hers) == 200
        assert await status_of(somebody_else, hers) == 404


async def test_an_id_can_not_be_made_up_or_handed_on_by_changing_its_tag(pollux: Replica, upstream: Upstream) -> None:
    hers = await made(pollux, ALICE, cached=False)
    parts = decode_composite(hers)
    assert parts is not None
    assert parts.tag is not None
    bobs_own = decode_composite(await made(pollux, BOB, cached=False))
    assert bobs_own is not None
    tags = [None, "", bobs_own.tag, parts.tag[::-1], owner_tag(b"", "bob", parts.untagged), parts.tag + ";owner:bob"]
    asked = len(upstream.requests)
    async with pollux.http(BOB) as bob:
        for tag in tags:
            forged = encode_composite(CompositeId(parts.provider, parts.model_id, parts.response_id, tag))
            assert await status_of(bob, forged) == 404
        # Nor does his own tag serve for another response.
        other = encode_composite(CompositeId(parts.provider, parts.model_id, f"{parts.response_id}0", bobs_own.tag))
        assert await status_of(bob, other) == 404
    assert len(upstream.requests) == asked


@pytest.mark.parametrize("change", ["no padding", "escaped padding", "plain"])
async def test_the_padding_of_an_id_may_be_missing_or_escaped(change: str, pollux: Replica) -> None:
    padded = next(one for one in [await made(pollux, ALICE, cached=False) for _ in range(12)] if one.endswith("="))
    written = {"no padding": padded.rstrip("="), "escaped padding": padded.replace("=", "%3D"), "plain": padded}[change]
    async with pollux.http() as http:
        answer = await http.get(f"responses/{written}")
        assert answer.status == 200
        assert (await answer.json())["id"] == padded


# What they may use.


@pytest.fixture
async def restricted(upstream: Upstream, store_url: str) -> AsyncIterator[Replica]:
    """Alice may use one model, with one of her keys; bob what his aliases and wildcards lead to."""
    config = make_config(
        upstream.base_url,
        **keys(
            ("alice", ALICE, [CACHED]), ("alice", ALICE_TOO, None), ("bob", BOB, ["openai/*"]), ("carol", CAROL, [])
        ),
    )
    wildcard = {**config["model_list"][0]["litellm_params"], "model": "openai/*"}
    config["model_list"].append({"model_name": "openai/*", "litellm_params": wildcard})
    config["router_settings"] = {"model_group_alias": {ALIAS: CACHED}}
    # A list of providers would not cover the alias.
    config["litellm_settings"]["responses"]["background_mode"]["polling_via_cache"] = "all"
    async with running_replica(config, store_url) as replica:
        yield replica


async def usable(pollux: Replica, key: str, model: str) -> bool:
    answers = []
    async with pollux.http(key) as http:
        for background in (True, False):
            body = {"model": model, "input": "x", "background": background}
            answer = await http.post("responses", json=body)
            if answer.status != 200:
                refused = await refusal(answer)
                assert refused.fields == (404, "invalid_request_error", "model_not_found", "model")
                assert refused.message == f"The model '{model}' does not exist or you do not have access to it."
            answers.append(answer.status == 200)
        answers.append((await http.get(f"models/{model}")).status == 200)
    assert len(set(answers)) == 1
    return answers[0]


async def test_a_key_creates_only_with_its_models(restricted: Replica) -> None:
    assert await usable(restricted, ALICE, CACHED)
    assert not await usable(restricted, ALICE, NATIVE)
    assert await usable(restricted, ALICE_TOO, NATIVE)
    assert not await usable(restricted, CAROL, CACHED)
    assert await usable(restricted, MASTER_KEY, NATIVE)


async def test_a_model_behind_an_alias_or_a_wildcard_may_be_used_by_who_may_use_what_it_leads_to(
    restricted: Replica,
) -> None:
    assert await usable(restricted, ALICE, ALIAS)
    assert not await usable(restricted, BOB, ALIAS)
    assert await usable(restricted, BOB, "openai/anything")
    assert not await usable(restricted, ALICE, "openai/anything")


async def test_the_list_of_models_is_that_of_the_key(restricted: Replica) -> None:
    listed = {}
    for key in (ALICE, ALICE_TOO, BOB, CAROL):
        async with restricted.http(key) as http:
            answer = await (await http.get("models")).json()
            assert answer["object"] == "list"
            listed[key] = {model["id"] for model in answer["data"]}
    assert listed == {
        ALICE: {CACHED, ALIAS},
        ALICE_TOO: {CACHED, NATIVE, "openai/*", ALIAS},
        BOB: {"openai/*"},
        CAROL: set(),
    }


@pytest.mark.parametrize("cached", [True, False])
async def test_the_models_of_a_key_hold_for_ids_as_well(cached: bool, restricted: Replica, upstream: Upstream) -> None:
    model = "openai/anything"
    theirs = await made(restricted, ALICE_TOO, cached=cached, model=model)
    hers = await made(restricted, ALICE_TOO, cached=cached)
    asked = len(upstream.requests)
    async with restricted.http(ALICE) as narrow, restricted.http(ALICE_TOO) as wide:
        for method, path in uses(theirs):
            assert (await refusal(await narrow.request(method, path))).status == 404
        body = {"model": CACHED, "input": "x", "previous_response_id": theirs}
        assert (await refusal(await narrow.post("responses", json=body))).status == 400
        assert len(upstream.requests) == asked
        assert await status_of(wide, theirs) == 200
        assert await status_of(narrow, hers) == 200
        listed = (await (await narrow.get("responses")).json())["data"]
        assert [response["id"] for response in listed] == ([hers] if cached else [])


@pytest.mark.parametrize("model", [ALIAS, CACHED])
async def test_who_may_create_a_response_may_read_it(model: str, restricted: Replica) -> None:
    for cached in (True, False):
        hers = await made(restricted, ALICE, cached=cached, model=model)
        async with restricted.http(ALICE) as alice:
            assert await status_of(alice, hers) == 200
            body = {"model": model, "input": "x", "previous_response_id": hers}
            assert (await alice.post("responses", json=body)).status == 200
    async with restricted.http(ALICE) as alice:
        assert len((await (await alice.get("responses")).json())["data"]) == 1


# LiteLLM's ids.


def litellm_id(config: dict[str, Any], index: int = 0) -> str:
    """As LiteLLM makes it: over the model's name and each parameter, the credential included, in file order."""
    entry = config["model_list"][index]
    text = entry["model_name"] + "".join(f"{name}{value}" for name, value in entry["litellm_params"].items())
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("accepted", [True, False])
async def test_ids_without_a_tag_are_the_masters_or_everybodys(
    accepted: bool, upstream: Upstream, store_url: str
) -> None:
    config = make_config(upstream.base_url, accept_untagged_ids=accepted)
    untagged = encode_composite(CompositeId("openai", litellm_id(config), "resp_made_by_litellm"))
    async with (
        running_replica(config, store_url) as pollux,
        pollux.http(MASTER_KEY) as master,
        pollux.http() as alice,
    ):
        body = {"model": CACHED, "input": "x", "previous_response_id": untagged}
        assert (await alice.post("responses", json=body)).status == (200 if accepted else 400)
        for http, good in ((master, True), (alice, accepted)):
            answer = await http.get(f"responses/{quote(untagged, safe='')}")
            assert answer.status == (200 if good else 404)
            if good:
                assert (await answer.json())["id"] == untagged, "the id of a response is the same for ever"
    seen = [request.path_qs for request in upstream.requests if request.method == "GET"]
    assert seen == ["/v1/responses/resp_made_by_litellm"] * (2 if accepted else 1)


async def test_litellms_hash_of_a_deployment_is_understood_but_never_given(upstream: Upstream, store_url: str) -> None:
    config = make_config(upstream.base_url)
    hashes = [litellm_id(config, index) for index in range(2)]
    async with running_replica(config, store_url) as pollux, pollux.http(MASTER_KEY) as master:
        for index, model in enumerate((CACHED, NATIVE)):
            given = decode_composite(await made(pollux, MASTER_KEY, cached=False, model=model))
            assert given is not None
            assert given.model_id not in hashes
            old = encode_composite(CompositeId("openai", hashes[index], "resp_old"))
            body = {"model": model, "input": "x", "previous_response_id": old}
            assert (await master.post("responses", json=body)).status == 200
            assert upstream.requests[-1].json["previous_response_id"] == "resp_old"
            assert await status_of(master, old) == 200


async def test_a_raw_id_of_the_provider_is_trusted_like_one_without_a_tag(upstream: Upstream, store_url: str) -> None:
    body = {"model": CACHED, "input": "x", "previous_response_id": "resp_raw_from_the_provider"}
    for accepted, key, status in ((False, ALICE, 400), (False, MASTER_KEY, 200), (True, ALICE, 200)):
        async with serving(upstream, store_url, accept_untagged_ids=accepted) as pollux, pollux.http(key) as http:
            assert (await http.post("responses", json=body)).status == status
            assert (await http.get("responses/resp_raw_from_the_provider")).status == 404


async def test_our_ids_are_litellms_with_a_fourth_part(pollux: Replica) -> None:
    composite = await made(pollux, ALICE, cached=False)
    parts = decode_composite(composite)
    assert parts is not None
    # LiteLLM splits at the semicolons and takes the first three.
    assert parts.untagged.split(";")[1] == f"model_id:{parts.model_id}"
    assert composite == encode_composite(parts)
    assert len(parts.tag or "") == 22


# Secrets of ids.


async def test_id_secrets_rotate_the_first_signs_and_all_verify(upstream: Upstream, store_url: str) -> None:
    old_secret, new_secret = "an old secret of ids", "a new secret of ids"
    async with serving(upstream, store_url, id_secrets=[old_secret]) as pollux:
        old = await made(pollux, ALICE, cached=False)
    async with serving(upstream, store_url, id_secrets=[new_secret, old_secret]) as pollux:
        new = await made(pollux, ALICE, cached=False)
        async with pollux.http() as alice:
            assert await status_of(alice, old) == 200
            assert (await (await alice.get(f"responses/{quote(old, safe='')}")).json())["id"] == old
    async with serving(upstream, store_url, id_secrets=[new_secret]) as pollux, pollux.http() as alice:
        assert await status_of(alice, new) == 200
        assert await status_of(alice, old) == 404
    for composite, secret in ((old, old_secret), (new, new_secret)):
        parts = decode_composite(composite)
        assert parts is not None
        assert parts.tag == owner_tag(secret.encode(), "alice", parts.untagged)


async def test_the_generated_secret_is_kept_in_the_store_and_shared(upstream: Upstream, store_url: str) -> None:
    async with serving(upstream, store_url) as one, serving(upstream, store_url) as other, other.http() as alice:
        assert await status_of(alice, await made(one, ALICE, cached=False)) == 200


# Without any key.


def open_config(upstream: str, **pollux: Any) -> dict[str, Any]:
    config = make_config(upstream, keys=[], **pollux)
    return {**config, "general_settings": {}}


async def test_without_any_key_everybody_is_served(
    upstream: Upstream, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    async with (
        running_replica(open_config(upstream.base_url), store_url) as pollux,
        pollux.http(key=None) as one,
        pollux.http("sk-whatever-you-like") as other,
    ):
        answer = await one.post("responses", json={"model": CACHED, "input": "x", "background": True})
        assert answer.status == 200
        assert await status_of(other, (await answer.json())["id"]) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "pollux.example", "", "127.0.0.1.example"])
def test_without_any_key_no_address_beyond_loopback_is_served(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    upstream = "http://127.0.0.1:9/v1"
    with pytest.raises(ConfigError, match="no key is configured, so Pollux serves loopback only"):
        check_exposure(parse_config(open_config(upstream), environ={}), host)
    check_exposure(parse_config(open_config(upstream, allow_unauthenticated=True), environ={}), host)
    check_exposure(parse_config(make_config(upstream), environ={}), host)
    monkeypatch.setenv("LITELLM_MASTER_KEY", MASTER_KEY)
    check_exposure(parse_config(open_config(upstream), environ={}), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_without_any_key_loopback_is_served(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    check_exposure(parse_config(open_config("http://127.0.0.1:9/v1"), environ={}), host)


# What stays here.

CREDENTIALS = {
    "Authorization": f"Bearer {ALICE}",
    "api-key": ALICE,
    "x-api-key": ALICE,
    "x-litellm-api-key": ALICE,
    "Cookie": f"session={ALICE}",
    "Proxy-Authorization": f"Basic {ALICE}",
    "OpenAI-Organization": f"org-{ALICE}",
    "OpenAI-Project": f"proj-{ALICE}",
    "X-Forwarded-For": ALICE,
    "X-Anything": ALICE,
}


async def test_a_clients_credentials_never_reach_the_provider(pollux: Replica, upstream: Upstream) -> None:
    async with aiohttp.ClientSession(f"{pollux.url}/v1/", headers=CREDENTIALS) as http:
        for model, background, stream in (
            (CACHED, False, False),
            (CACHED, False, True),
            (CACHED, True, False),
            (NATIVE, True, False),
            (NATIVE, True, True),
        ):
            body = {"model": model, "input": "x", "background": background, "stream": stream}
            answer = await http.post(f"responses?api_key={ALICE}", json=body)
            assert answer.status == 200
            text = await answer.text()
            if stream:
                text = orjson.dumps(orjson.loads(text.split("data: ")[1].split("\n")[0])["response"]).decode()
            for method, path in uses(orjson.loads(text)["id"]):
                await (await http.request(method, path)).read()
    assert len(upstream.requests) > 20
    for seen in upstream.requests:
        assert seen.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert seen.headers.keys() <= {
            *("Host", "Authorization", "Accept", "Accept-Encoding", "User-Agent", "Content-Type", "Content-Length")
        }
        assert ALICE not in f"{seen.headers} {seen.path_qs} {seen.body!r}"


async def test_of_a_clients_headers_only_the_known_ones_are_forwarded(pollux: Replica, upstream: Upstream) -> None:
    forwarded = {
        "OpenAI-Beta": "responses=v1",
        "X-Client-Request-Id": "mine",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
    }
    async with pollux.http() as http:
        body = {"model": NATIVE, "input": "x", "background": True}
        assert (await http.post("responses", json=body, headers=forwarded)).status == 200
    assert forwarded.items() <= dict(upstream.requests[0].headers).items()


SAID = "a sentence that nobody but the provider may read"


async def test_neither_keys_nor_bodies_get_into_the_log(
    pollux: Replica, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pollux")
    headers = {"Idempotency-Key": f"idempotency {SAID}"}
    async with pollux.http() as http, pollux.http("sk-wrong-and-secret-9999") as stranger:
        for body in (
            {"model": CACHED, "background": True},
            {"model": CACHED, "background": True, "stream": True},
            {"model": CACHED},
            {"model": NATIVE, "background": True},
        ):
            said = {**body, "input": SAID, "instructions": SAID, "metadata": {"a": SAID}, "user": SAID}
            answer = await http.post("responses", json=said, headers=headers)
            text = await answer.text()
            if answer.content_type == "application/json":
                for method, path in uses(orjson.loads(text)["id"]):
                    await (await http.request(method, path)).read()
            assert (await stranger.post("responses", json=said)).status == 401
        for bad in (b'{"input": "%b' % SAID.encode(), b'{"model": "%b"}' % SAID.encode()):
            assert (await http.post("responses", data=bad)).status in (400, 404)
        await http.get(f"responses/{quote(SAID)}?wait={quote(SAID)}")
        response_id = await create(pollux, SAID)
        assert await status_of(http, response_id) == 200
    assert any(record.name.startswith("pollux.") for record in caplog.records), "something was logged"
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    for secret in (*SECRETS, "sk-wrong-and-secret-9999", "nobody but the provider", "Gladly."):
        assert secret not in logged


async def test_the_sdk_reads_a_wrong_key_as_an_authentication_error(pollux: Replica) -> None:
    async with pollux.client("sk-not-a-key-of-ours") as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.responses.create(model=CACHED, input="x")
        assert refused.value.code == "invalid_api_key"
        assert refused.value.request_id
