"""What a client entrusts to its tools reaches the provider, and is shown to nobody."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from aiohttp import web

from tests.support.replica import ALICE, BOB, CACHED, MASTER_KEY, NATIVE, create, ended, make_config, running_replica
from tests.support.scripts import ITEM, OUTPUT, RAW_ID, answering, event, lifecycle, plain, streaming
from tests.support.sse import read_stream
from tests.support.upstreams import running_script

HIDDEN = ("oauth-token-0123456789", "header-token-0123", "tenant-4711", "url-key-12345678", "network-secret-1")
TOOLS: list[dict[str, Any]] = [
    {
        "type": "mcp",
        "server_label": "git",
        "server_url": "https://mcp.example/tenant-4711/mcp?key=url-key-12345678",
        "authorization": "oauth-token-0123456789",
        "headers": {"X-Token": "header-token-0123"},
    },
    {
        "type": "code_interpreter",
        "container": {
            "type": "auto",
            "network_policy": {
                "type": "allowlist",
                "allowed_domains": ["a.example"],
                "domain_secrets": [{"domain": "a.example", "name": "N", "value": "network-secret-1"}],
            },
        },
    },
]
ECHOED: dict[str, Any] = {"tools": TOOLS, "echo": TOOLS}


def hides_all(text: str) -> bool:
    return not any(secret in text for secret in HIDDEN)


async def echoing(request: web.Request) -> web.StreamResponse:
    """A weak provider, which says again whatever it was told."""
    asked = json.loads(await request.read() or b"{}")
    whole = {"id": RAW_ID % 0, "object": "response", "status": "completed", "output": [], **ECHOED}
    if not asked.get("stream"):
        return await plain(200, whole)(request)
    said = event("response.output_text.delta", output_index=0, content_index=0, delta=f"with {HIDDEN[0]}")
    done = event("response.output_item.done", output_index=0, item={**ITEM, "tool": TOOLS[0]})
    created = lifecycle("response.created", "in_progress", **ECHOED)
    end = lifecycle("response.completed", "completed", output=[], **ECHOED)
    return await streaming(created, OUTPUT[0], said, done, end)(request)


@pytest.mark.parametrize("streamed", [True, False])
async def test_secrets_of_tools_are_shown_nowhere_in_cached_mode(
    streamed: bool, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pollux")
    async with (
        running_script(echoing) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        body = {"model": CACHED, "input": [{"role": "user", "content": "x", "tools": TOOLS}], "tools": TOOLS}
        created = await (await http.post("responses", json={**body, "background": True})).text()
        assert hides_all(created)
        assert json.loads(created)["tools"][0]["server_url"] == "https://mcp.example"
        response_id = await create(pollux, "x", tools=TOOLS, stream=streamed)
        response = await ended(http, response_id)
        assert response["status"] == "completed"
        assert hides_all(json.dumps(response))
        assert hides_all(await (await http.get("responses")).text())
        for one in (response_id, json.loads(created)["id"]):
            assert hides_all(await (await http.get(f"responses/{one}/input_items")).text())
        if streamed:
            assert hides_all(json.dumps(await read_stream(await http.get(f"responses/{response_id}?stream=true"))))
        assert upstream.requests[-1].json["tools"] == TOOLS, "the provider has them"
    assert hides_all(caplog.text)


@pytest.mark.parametrize(
    "mode", [{"model": CACHED}, {"model": CACHED, "stream": True}, {"model": NATIVE, "background": True}]
)
async def test_secrets_of_tools_are_shown_nowhere_in_the_other_modes(mode: dict[str, Any], store_url: str) -> None:
    async with (
        running_script(echoing) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        answer = await (await http.post("responses", json={**mode, "input": "x", "tools": TOOLS})).text()
        assert hides_all(answer)
        assert upstream.requests[-1].json["tools"] == TOOLS
        if not mode.get("stream"):
            structural = await (await http.get(f"responses/{json.loads(answer)['id']}")).json()
            assert hides_all(json.dumps(structural["tools"])), "also later, when the request is long gone"


@pytest.mark.parametrize("background", [True, False])
async def test_secrets_of_tools_are_not_in_errors(
    background: bool, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = f"401 from {TOOLS[0]['server_url']}: {HIDDEN[0]} is no good"
    reply = plain(424, {"error": {"message": message}})
    async with (
        running_script(answering([reply])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        body = {"model": CACHED, "input": "x", "tools": TOOLS, "background": background}
        answer = await (await http.post("responses", json=body, headers={"Prefer": "wait=20"})).text()
        assert "401 from https://mcp.example" in answer
        assert hides_all(answer)
        assert hides_all(caplog.text)


# Idempotency keys, where the provider's account is shared.


async def test_an_owners_idempotency_key_is_of_no_use_to_another(store_url: str) -> None:
    answers: dict[str, int] = {}

    async def remembering(request: web.Request) -> web.StreamResponse:
        key = request.headers["Idempotency-Key"]
        number = answers.setdefault(key, len(answers))
        whole = {"id": RAW_ID % number, "object": "response", "status": "completed", "output": [], "number": number}
        return web.json_response(whole)

    async with (
        running_script(remembering) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
    ):
        numbers: dict[str, int] = {}
        for key in (ALICE, BOB, MASTER_KEY, ALICE, BOB):
            async with pollux.http(key) as http:
                for model in ({"model": CACHED}, {"model": NATIVE, "background": True}):
                    body = {"input": "x", **model}
                    answer = await http.post("responses", json=body, headers={"Idempotency-Key": "req-1"})
                    number = (await answer.json())["number"]
                    assert numbers.setdefault(key, number) == number, "the same owner gets the same again"
        assert sorted(numbers.values()) == [0, 1, 2]
        assert "req-1" not in {request.headers["Idempotency-Key"] for request in upstream.requests}
