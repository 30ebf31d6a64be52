"""Back-pressure: who asks for too much is told so, and when to come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import pytest
import redis

from server.keyring import Principal
from server.rates import check_rate
from server.upstream import health
from storage import Store
from storage.keys import Shard
from tests.support.replica import BOB, CACHED, NATIVE, create, make_config, running_replica
from tests.support.upstreams import running_simulator, seen_by

LATER = {"model": CACHED, "input": "[[first_delay_ms=30000]]", "background": True}
PROXIED = {"model": CACHED, "input": "proxied"}


async def test_a_key_with_too_many_unfinished_responses_gets_429_until_one_has_ended(
    simulator: str, store_url: str
) -> None:
    config = make_config(simulator)
    config["pollux"]["keys"][0]["max_in_flight"] = 2
    async with running_replica(config, store_url) as pollux, pollux.http() as http, pollux.http(BOB) as bob:
        first = await create(pollux, "[[first_delay_ms=30000]]")
        await create(pollux, "[[first_delay_ms=30000]]")
        refused = await http.post("responses", json=LATER)
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 120
        error = (await refused.json())["error"]
        assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
        assert "2 responses" in error["message"]
        assert (await bob.post("responses", json=LATER)).status == 200
        assert (await http.post("responses", json=PROXIED)).status == 200
        await http.post(f"responses/{first}/cancel")
        assert (await http.post("responses", json=LATER)).status == 200


async def test_a_full_queue_is_429(simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator, max_queued=2, worker_concurrency=0), store_url) as pollux:
        for _ in range(2):
            await create(pollux, "queued")
        async with pollux.http(BOB) as http:
            refused = await http.post("responses", json=LATER)
            assert refused.status == 429
            assert (await refused.json())["error"]["code"] == "rate_limit_exceeded"


async def test_creates_beyond_the_rate_of_a_key_are_429_on_whatever_replica_and_in_every_mode(
    simulator: str, store_url: str
) -> None:
    config = rated(simulator, 5)
    async with (
        running_replica(config, store_url) as one,
        running_replica(config, store_url) as other,
        one.http() as at_one,
        other.http() as at_other,
        other.http(BOB) as bob,
    ):
        for http, body in (
            (at_one, PROXIED),
            (at_other, {"model": CACHED, "input": "cached", "background": True}),
            (at_one, {"model": NATIVE, "input": "native", "background": True}),
        ):
            assert (await http.post("responses", json=body)).status == 200
        for wrong in ({"input": "no model"}, {"model": CACHED, "input": 5, "background": True}):
            assert (await at_one.post("responses", json=wrong)).status == 400
        answers = await asyncio.gather(*(http.post("responses", json=LATER) for http in (at_one, at_other) * 10))
        assert Counter(answer.status for answer in answers) == {200: 2, 429: 18}

        refused = await at_other.post("responses", json=PROXIED)
        assert refused.status == 429
        assert 50 < int(refused.headers["Retry-After"]) <= 60
        error = (await refused.json())["error"]
        assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
        assert "per minute, 5." in error["message"]
        assert (await bob.post("responses", json=LATER)).status == 200


async def test_whoever_is_limited_may_still_poll_list_and_cancel(simulator: str, store_url: str) -> None:
    async with running_replica(rated(simulator, 1), store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, "[[first_delay_ms=30000]]")
        for _ in range(5):
            assert (await http.get(f"responses/{response_id}")).status == 200
            assert (await http.get("responses")).status == 200
        assert (await http.post(f"responses/{response_id}/cancel")).status == 200
        assert (await http.post("responses", json=LATER)).status == 429


async def test_whoever_comes_back_after_retry_after_is_served(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with running_replica(rated(simulator, 2), store_url) as pollux, pollux.http() as http:
        for _ in range(2):
            await create(pollux, "quick")
        as_if_the_first_had_come_59_s_ago(admin)
        refused = await http.post("responses", json=LATER)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        await asyncio.sleep(int(refused.headers["Retry-After"]))
        assert (await http.post("responses", json=LATER)).status == 200
        again = await http.post("responses", json=LATER)
        assert (again.status, int(again.headers["Retry-After"]) > 50) == (429, True)


async def test_the_sdk_waits_as_it_is_told_and_then_gets_its_response(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with running_replica(rated(simulator, 1), store_url) as pollux, pollux.client(max_retries=1) as client:
        await create(pollux, "quick")
        as_if_the_first_had_come_59_s_ago(admin)
        made = await client.responses.create(model=CACHED, input="in a second", background=True)
        assert made.status == "queued"


async def test_a_key_without_a_rate_asks_no_store() -> None:
    await check_rate(cast("Store", None), Principal("alice"))


def rated(simulator: str, most: int) -> dict[str, Any]:
    """A config in which alice has a rate, and bob has none."""
    config = make_config(simulator)
    config["pollux"]["keys"][0]["requests_per_minute"] = most
    return config


def as_if_the_first_had_come_59_s_ago(admin: redis.Redis) -> None:
    requests = Shard(0).requests("alice")
    first: Any = admin.zrange(requests, 0, 0)
    admin.zincrby(requests, -59_000, first[0])


@pytest.mark.parametrize("background", [True, False], ids=["cached", "proxied"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_tokens_count_for_the_limit_of_their_minute(
    background: bool, stream: bool, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MINUTE_S", 1e9)
    async with running_simulator() as limited, running_simulator() as other:
        config = make_config(limited)
        config["model_list"] = [
            {"model_name": CACHED, "litellm_params": {"model": f"openai/{CACHED}", "api_base": base, **limits}}
            for base, limits in ((limited, {"tpm": 1, "order": 1}), (other, {"order": 2}))
        ]
        async with running_replica(config, store_url) as pollux, pollux.client() as client:
            for _ in range(2):
                made: Any = await client.responses.create(
                    model=CACHED,
                    input="hi",
                    background=background,
                    stream=stream,
                    extra_headers={} if stream else {"Prefer": "wait=20"},
                )
                if stream:
                    assert [event async for event in made][-1].type == "response.completed"
        for upstream in (limited, other):
            assert len((await seen_by(upstream))["requests"]) == 1
