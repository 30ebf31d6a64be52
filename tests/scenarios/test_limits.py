"""Back-pressure: who asks for too much is told so, and when to come back."""

from __future__ import annotations

from tests.support.replica import BOB, CACHED, create, make_config, running_replica

LATER = {"model": CACHED, "input": "[[first_delay_ms=30000]]", "background": True}


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
        assert (await http.post("responses", json={"model": CACHED, "input": "proxied"})).status == 200
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
