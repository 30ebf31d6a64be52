"""Usage: `GET /v1/usage` tells what each key has used, by day and model, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from aiohttp import web

from storage import Counted, Spent, Store, today
from tests.support.refusals import refusal
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    create,
    ended,
    make_config,
    running_replica,
    with_output,
)
from tests.support.scripts import CREATED, DONE_ITEM, OUTPUT, Reply, answering, lifecycle, streaming
from tests.support.upstreams import running_script
from tests.support.waiting import wait_until

PRICES = {CACHED: {"input": 1.25, "cached_input": 0.125, "output": 10}}
TOLD = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 150,
}
COST = (40 * 1.25 + 60 * 0.125 + 50 * 10) / 1e6
"""What that costs by these prices."""
COMPLETED = lifecycle("response.completed", "completed", output=[DONE_ITEM], usage=TOLD)


@pytest.fixture
async def priced(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(make_config(simulator, prices=PRICES), store_url) as replica:
        yield replica


async def usage(replica: Replica, key: str = ALICE, **query: Any) -> list[dict[str, Any]]:
    """The rows of a report; all of them."""
    async with replica.http(key) as http:
        answer = await http.get("usage", params=query)
        assert answer.status == 200, await answer.text()
        report = await answer.json()
    assert (report["object"], report["has_more"], report["next_page"]) == ("list", False, None)
    rows: list[dict[str, Any]] = report["data"]
    return rows


async def counted(replica: Replica, requests: int, key: str = ALICE) -> dict[str, Any]:
    """The sum of all, once so many requests are counted: what only passes through is counted within a second or two."""

    async def are_counted() -> bool:
        [row] = await usage(replica, key, group_by="owner") or [{"requests": 0}]
        assert row["requests"] <= requests
        return bool(row["requests"] == requests)

    await wait_until(are_counted, timeout_s=10)
    [row] = await usage(replica, key, group_by="owner")
    return row


def tokens(*responses: dict[str, Any]) -> tuple[int, int]:
    """Input and output of responses together, as they told it themselves."""
    told = [response["usage"] for response in responses if response["usage"]]
    return sum(one["input_tokens"] for one in told), sum(one["output_tokens"] for one in told)


def told_in(row: dict[str, Any]) -> tuple[int, int]:
    return row["input_tokens"], row["output_tokens"]


# ---- Cached responses


async def test_a_cached_response_is_counted_when_it_has_ended(priced: Replica) -> None:
    async with priced.http() as http:
        assert await usage(priced) == []
        response = await ended(http, await create(priced, "hi [[reasoning=1]]"))
    [row] = await usage(priced)
    told = response["usage"]
    assert row == {
        "object": "usage",
        "date": today().isoformat(),
        "model": CACHED,
        "requests": 1,
        "input_tokens": told["input_tokens"],
        "cached_input_tokens": 0,
        "output_tokens": told["output_tokens"],
        "reasoning_tokens": told["output_tokens_details"]["reasoning_tokens"],
        "total_tokens": told["total_tokens"],
        "cost": pytest.approx((told["input_tokens"] * 1.25 + told["output_tokens"] * 10) / 1e6),
    }
    assert row["reasoning_tokens"] > 0


async def test_reading_it_again_and_deleting_it_changes_nothing(priced: Replica) -> None:
    async with priced.http() as http:
        response_id = await create(priced, "hi")
        await ended(http, response_id)
        before = await usage(priced)
        for _ in range(3):
            await http.get(f"responses/{response_id}")
        await http.delete(f"responses/{response_id}")
    assert await usage(priced) == before


async def test_every_end_counts_as_a_request(priced: Replica) -> None:
    async with priced.http() as http:
        failed, incomplete = await create(priced, "[[fail=1]]"), await create(priced, "[[incomplete=1]]")
        responses = [await ended(http, failed), await ended(http, incomplete)]
        cancelled, deleted = [await create(priced, "[[first_delay_ms=30000]]") for _ in range(2)]
        await http.post(f"responses/{cancelled}/cancel")
        await http.delete(f"responses/{deleted}")
    row = await counted(priced, 4)
    assert told_in(row) == tokens(*responses)


async def test_a_failed_response_is_counted_with_what_its_provider_told(store_url: str) -> None:
    failed = lifecycle("response.failed", "failed", error={"message": "Broke."}, output=[DONE_ITEM], usage=TOLD)
    async with scripted(store_url, streaming(CREATED, *OUTPUT, failed)) as pollux, pollux.http() as http:
        assert (await ended(http, await create(pollux, "hi")))["status"] == "failed"
        row = await counted(pollux, 1)
    assert (told_in(row), row["cached_input_tokens"], row["cost"]) == ((100, 50), 60, pytest.approx(COST))


async def test_a_cancelled_response_is_counted_with_what_was_told_so_far(store_url: str) -> None:
    created = lifecycle("response.created", "in_progress", usage={"input_tokens": 100, "output_tokens": 0})

    async def stalling(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(created + OUTPUT[0] + OUTPUT[1])
        await asyncio.sleep(30)
        return answer

    async with scripted(store_url, stalling) as pollux, pollux.http() as http:
        response_id = await create(pollux, "hi")
        await with_output(pollux, response_id)
        assert (await http.post(f"responses/{response_id}/cancel")).status == 200
        assert told_in(await counted(pollux, 1)) == (100, 0)


async def test_a_response_that_is_cut_short_is_counted_with_what_was_told_so_far(store_url: str) -> None:
    created = lifecycle("response.created", "in_progress", usage={"input_tokens": 100})
    async with scripted(store_url, streaming(created, *OUTPUT)) as pollux, pollux.http() as http:
        assert (await ended(http, await create(pollux, "hi")))["status"] == "failed"
        assert told_in(await counted(pollux, 1)) == (100, 0)


async def test_nonsense_in_a_providers_usage_hinders_nothing(store_url: str) -> None:
    strange = {"input_tokens": -1, "output_tokens": "many", "output_tokens_details": [], "total_tokens": 1e400}
    completed = lifecycle("response.completed", "completed", output=[DONE_ITEM], usage=strange)
    huge = completed.replace(b"-1", b"9" * 30)
    async with scripted(store_url, streaming(CREATED, *OUTPUT, completed), streaming(CREATED, *OUTPUT, huge)) as pollux:
        async with pollux.http() as http:
            for _ in range(2):
                assert (await ended(http, await create(pollux, "hi")))["status"] == "completed"
        assert told_in(await counted(pollux, 2)) == (0, 0)


# ---- What passes through


async def test_a_proxied_response_is_counted(priced: Replica) -> None:
    async with priced.http() as http:
        response = await (await http.post("responses", json={"model": CACHED, "input": "hi"})).json()
        for _ in range(2):
            assert (await http.get(f"responses/{response['id']}")).status == 200
        other = await (await http.post("responses", json={"model": CACHED, "input": "hello"})).json()
    row = await counted(priced, 2)
    assert told_in(row) == tokens(response, other)
    assert row["cost"] > 0


async def test_a_proxied_stream_is_counted(priced: Replica) -> None:
    async with priced.http() as http:
        body = {"model": CACHED, "input": "hi", "stream": True}
        told = await (await http.post("responses", json=body)).text()
        assert "response.completed" in told
    row = await counted(priced, 1)
    assert row["input_tokens"] > 0
    assert row["output_tokens"] > 0


async def test_what_is_refused_is_not_counted(priced: Replica) -> None:
    async with priced.http() as http:
        for text in ("[[status=400]]", "[[unknown=1]]"):
            assert (await http.post("responses", json={"model": CACHED, "input": text})).status == 400
        await http.post("responses", json={"model": CACHED, "input": "hi"})
    assert (await counted(priced, 1))["requests"] == 1


async def test_a_native_response_counts_once_however_often_and_wherever_it_is_polled(
    simulator: str, store_url: str
) -> None:
    config = make_config(simulator)
    async with running_replica(config, store_url) as one, running_replica(config, store_url) as other:
        async with one.http() as http, other.http() as at_other, other.http(MASTER_KEY) as master:
            response_id = await create(one, "hi", model=NATIVE)
            response = await ended(http, response_id)
            for asking in (http, at_other, master):
                for _ in range(2):
                    assert (await asking.get(f"responses/{response_id}")).status == 200
            await asyncio.sleep(2)  # all of them would have been stored by now
        row = await counted(one, 1)
        assert told_in(row) == tokens(response)
        assert [line["owner"] for line in await usage(one, MASTER_KEY)] == ["alice"]


async def test_a_native_response_that_only_the_master_asks_for_is_its_owners(pollux: Replica) -> None:
    response_id = await create(pollux, "hi", model=NATIVE)
    async with pollux.http(MASTER_KEY) as master:
        await ended(master, response_id)
    assert (await counted(pollux, 1))["requests"] == 1


async def test_a_native_stream_and_polls_of_it_count_once(pollux: Replica) -> None:
    async with pollux.http() as http:
        response_id = await create(pollux, "hi [[words=5]]", model=NATIVE, stream=True)
        assert "response.completed" in await (await http.get(f"responses/{response_id}?stream=true")).text()
        await ended(http, response_id)
        await (await http.get(f"responses?ids={response_id}")).read()
        await asyncio.sleep(2)
    row = await counted(pollux, 1)
    assert row["output_tokens"] > 0


async def test_a_cancelled_native_response_is_counted(pollux: Replica) -> None:
    async with pollux.http() as http:
        response_id = await create(pollux, "[[first_delay_ms=30000]]", model=NATIVE)
        assert (await http.post(f"responses/{response_id}/cancel")).status == 200
    assert told_in(await counted(pollux, 1)) == (0, 0)


async def test_an_orderly_end_of_a_process_loses_nothing(simulator: str, store_url: str) -> None:
    config = make_config(simulator)
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        await http.post("responses", json={"model": CACHED, "input": "hi"})
    async with running_replica(config, store_url) as pollux:
        [row] = await usage(pollux)
        assert row["requests"] == 1


# ---- Whose, and when


async def test_each_key_sees_its_own_and_the_master_all(priced: Replica) -> None:
    async with priced.http() as http, priced.http(BOB) as bob:
        await ended(http, await create(priced, "hi"))
        body = {"model": CACHED, "input": "hi", "background": True}
        for _ in range(2):
            made = await (await bob.post("responses", json=body)).json()
            await ended(bob, made["id"])
    [mine], [bobs] = await usage(priced), await usage(priced, BOB)
    assert (mine["requests"], bobs["requests"]) == (1, 2)
    assert "owner" not in mine
    rows = await usage(priced, MASTER_KEY)
    assert [(row["owner"], row["requests"]) for row in rows] == [("alice", 1), ("bob", 2)]
    assert [row["owner"] for row in await usage(priced, MASTER_KEY, owner="bob")] == ["bob"]
    assert await usage(priced, owner="alice") == [mine]
    assert await usage(priced, MASTER_KEY, owner="nobody") == []
    [total] = await usage(priced, MASTER_KEY, group_by="day")
    assert (total["requests"], total["owner"], total["model"], total["date"]) == (3, None, None, mine["date"])


async def test_a_model_without_a_price_has_no_cost(pollux: Replica) -> None:
    async with pollux.http() as http:
        await ended(http, await create(pollux, "hi"))
    [row] = await usage(pollux)
    assert row["cost"] is None


@pytest.mark.parametrize("section", ["litellm_params", "model_info"])
async def test_litellms_costs_are_heeded_where_there_are_no_prices(
    simulator: str, store_url: str, section: str
) -> None:
    config = make_config(simulator)
    costs = {"input_cost_per_token": 1e-06, "output_cost_per_token": "2e-06"}
    config["model_list"][0].setdefault(section, {}).update(costs)
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        response = await ended(http, await create(pollux, "hi"))
        [row] = await usage(pollux)
    given, made = tokens(response)
    assert row["cost"] == pytest.approx((given + 2 * made) / 1e6)


async def test_an_alias_and_a_wildcard_are_counted_under_names_of_the_config(simulator: str, store_url: str) -> None:
    config = make_config(simulator)
    config["model_list"].append({**config["model_list"][0], "model_name": "wild-*"})
    config["router_settings"] = {"model_group_alias": {"short": CACHED}}
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        for model in ("short", CACHED, "wild-1", "wild-2"):
            await http.post("responses", json={"model": model, "input": "hi"})
            response_id = await create(pollux, "[[first_delay_ms=30000]]", model=model)
            await http.post(f"responses/{response_id}/cancel")
        await counted(pollux, 8)
        assert {row["model"] for row in await usage(pollux)} == {CACHED, "wild-*"}
        [row] = await usage(pollux, model="short")
        assert (row["model"], row["requests"]) == (CACHED, 4)


async def count(store: Store, owner: str, days_ago: int, model: str = CACHED, **amounts: int) -> None:
    one = Counted(owner, today() - timedelta(days=days_ago), Spent(model, **amounts), f"{owner} {days_ago} {model}", 60)
    await store.usage.count(store.usage.shards.of(owner), [one])


@pytest.fixture
async def history(pollux: Replica) -> Replica:
    """Alice has used two models on some days of the past."""
    assert pollux.context is not None
    store = pollux.context.store
    for days_ago in (0, 1, 29, 30, 200, 399):
        await count(store, "alice", days_ago, input=days_ago)
    await count(store, "alice", 1, "another", input=5, output=7)
    await count(store, "bob", 1, input=9)
    return pollux


def days_ago(rows: list[dict[str, Any]]) -> list[int]:
    return [(today() - date.fromisoformat(row["date"])).days for row in rows]


async def test_the_last_thirty_days_are_told_unless_others_are_asked_for(history: Replica) -> None:
    def ago(days: int) -> str:
        return (today() - timedelta(days=days)).isoformat()

    assert days_ago(await usage(history)) == [29, 1, 1, 0]
    assert days_ago(await usage(history, start_date=ago(1))) == [1, 1, 0]
    assert days_ago(await usage(history, start_date=ago(1), end_date=ago(1))) == [1, 1]
    assert days_ago(await usage(history, end_date=ago(1))) == [30, 29, 1, 1]
    assert days_ago(await usage(history, start_date=ago(365))) == [200, 30, 29, 1, 1, 0]
    assert days_ago(await usage(history, start_date=ago(400), end_date=ago(390))) == [399]
    assert await usage(history, start_date=ago(-3)) == []


async def test_rows_are_grouped_as_asked(history: Replica) -> None:
    def shown(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [(row["model"], row["requests"], row["input_tokens"], row["output_tokens"]) for row in rows]

    assert shown(await usage(history, group_by="model")) == [("another", 1, 5, 7), (CACHED, 3, 30, 0)]
    assert shown(await usage(history, group_by="day")) == [(None, 1, 29, 0), (None, 2, 6, 7), (None, 1, 0, 0)]
    both = [("group_by", "model"), ("group_by", "day")]
    async with history.http() as http:
        rows = (await (await http.get("usage", params=both)).json())["data"]
        assert rows == await usage(history)
        named = [("model", "another"), ("model", CACHED)]
        assert (await (await http.get("usage", params=named)).json())["data"] == rows
    assert shown(await usage(history, model="another")) == [("another", 1, 5, 7)]
    assert await usage(history, model="unknown") == []
    everything = await usage(history, MASTER_KEY, group_by="owner")
    assert [(row["owner"], row["requests"]) for row in everything] == [("alice", 4), ("bob", 1)]


async def test_a_long_report_comes_in_pages(history: Replica) -> None:
    async with history.http(MASTER_KEY) as http:
        rows: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            report = await (await http.get("usage", params=query)).json()
            assert len(report["data"]) <= 2
            rows += report["data"]
            if not report["has_more"]:
                break
            query["page"] = report["next_page"]
    assert rows == await usage(history, MASTER_KEY)
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("start_date=yesterday", "start_date"),
        ("start_date=2026-02-30", "start_date"),
        ("end_date=2026-1-1", "end_date"),
        ("end_date=", "end_date"),
        ("end_date=0001-01-05", "end_date"),
        ("start_date=2026-02-02&end_date=2026-02-01", "start_date"),
        ("start_date=2024-01-01&end_date=2025-01-01", "start_date"),
        ("group_by=week", "group_by"),
        ("group_by=day&group_by=hour", "group_by"),
        ("owner=bob", "owner"),
        ("owner=alice&owner=bob", "owner"),
        ("page=nonsense", "page"),
        ("page=e30=", "page"),
        ("page=WzEsMiwzXQ==", "page"),
        ("limit=many", "limit"),
        ("limit=10001", "limit"),
    ],
)
async def test_a_question_with_a_mistake_is_refused_by_name(pollux: Replica, query: str, param: str) -> None:
    async with pollux.http() as http:
        refused = await refusal(await http.get(f"usage?{query}"))
    assert (refused.status, refused.type, refused.param) == (400, "invalid_request_error", param)


async def test_a_key_is_needed(pollux: Replica) -> None:
    async with pollux.http(None) as http:
        assert (await http.get("usage")).status == 401


@asynccontextmanager
async def scripted(store_url: str, *replies: Reply) -> AsyncIterator[Replica]:
    """A replica with prices, in front of a provider that answers so."""
    async with (
        running_script(answering(replies)) as upstream,
        running_replica(make_config(upstream.base_url, prices=PRICES), store_url) as replica,
    ):
        yield replica
