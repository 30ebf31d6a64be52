"""`Idempotency-Key` over public HTTP: the same key and body lead to one response, whoever asks how often and where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import orjson
import pytest
import redis

from tests.support.obliging import obliging
from tests.support.refusals import Refusal, refusal
from tests.support.replica import ALICE, BOB, CACHED, MASTER_KEY, NATIVE, Replica, create, make_config, running_replica
from tests.support.sse import read_stream
from tests.support.upstreams import Upstream, running_script
from tests.support.waiting import wait_until

BODY = {"model": CACHED, "input": "Tell me a story.", "background": True}
KEY = "9f1c-once-and-only-once"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_script(obliging()) as running:
        yield running


@pytest.fixture
async def pollux(upstream: Upstream, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(make_config(upstream.base_url), store_url) as replica:
        yield replica


@pytest.fixture
async def other_replica(upstream: Upstream, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(make_config(upstream.base_url), store_url) as replica:
        yield replica


async def submit(http: aiohttp.ClientSession, body: Any = BODY, key: str = KEY) -> str:
    """Create with a key; gives the id of what it led to."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    answer = await http.post("responses", data=raw, headers={"Idempotency-Key": key})
    assert answer.status == 200, await answer.text()
    response_id: str = (await answer.json())["id"]
    return response_id


async def refused(http: aiohttp.ClientSession, body: Any, key: str = KEY) -> Refusal:
    return await refusal(await http.post("responses", json=body, headers={"Idempotency-Key": key}))


async def ended(http: aiohttp.ClientSession, response_id: str) -> dict[str, Any]:
    answer = await http.get(f"responses/{response_id}?wait=20")
    response: dict[str, Any] = await answer.json()
    assert response["status"] == "completed"
    return response


async def test_the_same_key_and_body_lead_to_the_same_response(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http() as http:
        first = await submit(http)
        assert await submit(http) == first, "at once"
        await ended(http, first)
        assert await submit(http) == first, "and when it has ended"
        assert len((await (await http.get("responses")).json())["data"]) == 1
    assert len(upstream.requests) == 1


async def test_a_replay_answers_with_the_state_that_the_response_is_in(pollux: Replica) -> None:
    async with pollux.http() as http:
        response = await ended(http, await submit(http))
        answer = await http.post("responses", data=orjson.dumps(BODY), headers={"Idempotency-Key": KEY})
        assert await answer.json() == response


async def test_a_hundred_calls_at_once_on_two_replicas_start_one_run(
    pollux: Replica, other_replica: Replica, upstream: Upstream
) -> None:
    async with pollux.http() as one, other_replica.http() as other:
        ids = await asyncio.gather(*(submit(http) for _ in range(50) for http in (one, other)))
        assert len(set(ids)) == 1
        await ended(one, ids[0])
        assert await submit(other) == ids[0]
        assert len((await (await other.get("responses")).json())["data"]) == 1
    assert len(upstream.requests) == 1


async def test_many_keys_at_once_start_a_run_each(pollux: Replica, other_replica: Replica, upstream: Upstream) -> None:
    async with pollux.http() as one, other_replica.http() as other:
        pairs = await asyncio.gather(
            *(asyncio.gather(submit(one, key=f"key {n}"), submit(other, key=f"key {n}")) for n in range(30))
        )
        assert all(first == second for first, second in pairs)
        assert len({first for first, _ in pairs}) == 30
        await asyncio.gather(*(ended(one, first) for first, _ in pairs))
    assert len(upstream.requests) == 30


@pytest.mark.parametrize(
    "other",
    [
        {**BODY, "input": "Tell me another story."},
        {**BODY, "stream": True},
        {**BODY, "metadata": {"a": "b"}},
        orjson.dumps(BODY) + b" ",
    ],
)
async def test_the_same_key_with_another_body_is_refused(other: Any, pollux: Replica, upstream: Upstream) -> None:
    raw = other if isinstance(other, bytes) else orjson.dumps(other)
    async with pollux.http() as http:
        first = await submit(http)
        answer = await refusal(await http.post("responses", data=raw, headers={"Idempotency-Key": KEY}))
        assert answer.fields == (400, "invalid_request_error", "idempotency_key_reused", None)
        assert answer.message.startswith("This Idempotency-Key was used with another request body.")
        await ended(http, first)
        assert await submit(http) == first, "the first one is not touched"
    assert len(upstream.requests) == 1


async def test_without_a_key_the_same_body_starts_a_run_each_time(pollux: Replica) -> None:
    async with pollux.http() as http:
        ids = {(await (await http.post("responses", json=BODY)).json())["id"] for _ in range(3)}
        assert len(ids) == 3
        assert await submit(http, key="") != await submit(http, key="")


@pytest.mark.parametrize("key", ["a", "A", "a/b", "ключ", "x" * 1024, '"quoted"', "{0}", "*"])
async def test_any_text_may_be_a_key_and_is_its_own(key: str, pollux: Replica) -> None:
    async with pollux.http() as http:
        first = await submit(http, key="neighbour")
        second = await submit(http, key=key)
        assert first != second
        assert await submit(http, key=key) == second


async def test_a_replay_with_stream_streams_from_the_first_event(
    pollux: Replica, other_replica: Replica, upstream: Upstream
) -> None:
    body, headers = {**BODY, "stream": True}, {"Idempotency-Key": KEY}
    async with pollux.http() as one, other_replica.http() as other:
        first = await read_stream(await one.post("responses", json=body, headers=headers))
        assert [event["sequence_number"] for event in first] == list(range(len(first)))
        assert first[0]["type"] == "response.created"
        assert first[-1]["type"] == "response.completed"
        for http in (one, other):
            assert await read_stream(await http.post("responses", json=body, headers=headers)) == first
    assert len(upstream.requests) == 1


async def test_replays_of_a_running_stream_all_see_every_event(simulator: str, store_url: str) -> None:
    body = {**BODY, "stream": True, "input": "[[words=20]] [[delay_ms=10]]"}
    async with (
        running_replica(make_config(simulator), store_url) as pollux,
        running_replica(make_config(simulator), store_url) as other_replica,
        pollux.http() as one,
        other_replica.http() as other,
    ):

        async def stream(http: aiohttp.ClientSession) -> list[dict[str, Any]]:
            return await read_stream(await http.post("responses", json=body, headers={"Idempotency-Key": KEY}))

        streams = await asyncio.gather(*(stream(http) for http in (one, other, one, other)))
        assert all(events == streams[0] for events in streams)
        assert streams[0][-1]["type"] == "response.completed"


@pytest.mark.parametrize("running", [True, False])
async def test_after_a_delete_the_key_starts_a_new_run(running: bool, simulator: str, store_url: str) -> None:
    body = {**BODY, "input": "[[first_delay_ms=30000]]" if running else "x"}
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        first = await submit(http, body)
        if not running:
            await ended(http, first)
        assert (await http.delete(f"responses/{first}")).status == 200
        second = await submit(http, body)
        assert second != first
        assert await submit(http, body) == second
        assert (await http.get(f"responses/{first}")).status == 404
        assert (await http.delete(f"responses/{second}")).status == 200
        # The body is free again, too.
        assert await submit(http, {**body, "input": "y"}) not in (first, second)


async def test_after_its_expiry_the_key_starts_a_new_run(
    pollux: Replica, upstream: Upstream, admin: redis.Redis
) -> None:
    async with pollux.http() as http:
        first = await submit(http)
        await ended(http, first)
        kept_ms = admin.pttl(f"pollux:{{0}}:record:{first}")
        [remembered] = [key for key in admin.scan_iter() if b":idempotency:" in key]
        assert 0 < kept_ms <= 600_000
        assert 0 < admin.pttl(remembered) <= 24 * 3600 * 1000
        admin.pexpire(f"pollux:{{0}}:record:{first}", 1)
        await wait_until(lambda: not admin.exists(f"pollux:{{0}}:record:{first}"), what="it has expired")
        second = await submit(http)
        assert second != first
        await ended(http, second)
    assert len(upstream.requests) == 2


async def test_a_cancelled_response_is_what_its_key_leads_to(simulator: str, store_url: str) -> None:
    body = {**BODY, "input": "[[first_delay_ms=30000]]"}
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        first = await submit(http, body)
        assert (await http.post(f"responses/{first}/cancel")).status == 200
        answer = await http.post("responses", data=orjson.dumps(body), headers={"Idempotency-Key": KEY})
        assert ((await answer.json())["id"], (await answer.json())["status"]) == (first, "cancelled")


async def test_the_same_key_of_another_owner_is_another_key(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http(ALICE) as alice, pollux.http(BOB) as bob, pollux.http(MASTER_KEY) as master:
        ids = [await submit(http) for http in (alice, bob, master)]
        assert len(set(ids)) == 3
        for http, mine in zip((alice, bob, master), ids, strict=True):
            await ended(http, mine)
            assert await submit(http) == mine
        assert (await refused(bob, {**BODY, "input": "y"})).code == "idempotency_key_reused"
    assert len(upstream.requests) == 3


async def test_a_replay_may_wait_for_the_end(simulator: str, store_url: str) -> None:
    body = {**BODY, "input": "[[first_delay_ms=300]]"}
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        first = await submit(http, body)
        headers = {"Idempotency-Key": KEY, "Prefer": "wait=20"}
        answer = await http.post("responses", data=orjson.dumps(body), headers=headers)
        assert ((await answer.json())["id"], (await answer.json())["status"]) == (first, "completed")


async def test_what_is_refused_uses_up_no_key(pollux: Replica) -> None:
    async with pollux.http() as http:
        assert (await refused(http, {**BODY, "input": 5})).code == "invalid_type"
        assert (await refused(http, {**BODY, "previous_response_id": "x"})).code == "previous_response_not_found"
        assert (await refused(http, {**BODY, "model": "x"})).code == "model_not_found"
        assert await submit(http)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": CACHED},
        {"model": CACHED, "stream": True},
        {"model": NATIVE, "background": True},
        {"model": NATIVE, "background": True, "stream": True},
    ],
)
async def test_in_the_other_modes_the_key_is_forwarded_and_the_provider_decides(
    fields: dict[str, Any], pollux: Replica, upstream: Upstream
) -> None:
    async with pollux.http() as http:
        for text in ("x", "x", "y"):
            answer = await http.post("responses", json={"input": text, **fields}, headers={"Idempotency-Key": KEY})
            assert answer.status == 200
            await answer.read()
    (sent,) = {seen.headers["Idempotency-Key"] for seen in upstream.requests}
    assert KEY not in sent, "other owners share the account"


async def test_in_cached_mode_the_key_is_ours_and_not_forwarded(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http() as http:
        await ended(http, await submit(http))
    # A run that is tried again must not be taken for the first one by the provider.
    assert "Idempotency-Key" not in upstream.requests[0].headers


async def test_the_retries_of_an_sdk_with_a_key_start_one_run(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.client() as client:
        first, second = [
            await client.responses.create(
                model=CACHED, input="x", background=True, extra_headers={"Idempotency-Key": KEY}
            )
            for _ in range(2)
        ]
        assert first.id == second.id
        with pytest.raises(openai.BadRequestError) as other_body:
            await client.responses.create(
                model=CACHED, input="y", background=True, extra_headers={"Idempotency-Key": KEY}
            )
        assert other_body.value.code == "idempotency_key_reused"
    async with pollux.http() as http:
        await ended(http, first.id)
    assert len(upstream.requests) == 1


async def test_a_replay_does_not_ask_for_what_it_continues_which_may_have_gone(pollux: Replica) -> None:
    async with pollux.http() as http:
        first = await create(pollux, "first")
        await http.get(f"responses/{first}?wait=10")
        body = {"model": CACHED, "input": "go on", "background": True, "previous_response_id": first}
        made = await (await http.post("responses", json=body, headers={"Idempotency-Key": "k"})).json()
        await http.delete(f"responses/{first}")
        again = await http.post("responses", json=body, headers={"Idempotency-Key": "k"})
        assert again.status == 200
        assert (await again.json())["id"] == made["id"]
        other = await http.post("responses", json={**body, "input": "x"}, headers={"Idempotency-Key": "k"})
        assert (await other.json())["error"]["code"] == "idempotency_key_reused"
        fresh = await http.post("responses", json=body, headers={"Idempotency-Key": "l"})
        assert (await fresh.json())["error"]["code"] == "previous_response_not_found"
