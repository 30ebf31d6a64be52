"""Completion windows: what may wait gives way to what may not, for as long as its window allows.

One worker with one place, held by a first job, so that all others queue; then the order in which the provider is asked
is the order of the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from aiohttp import web

from storage.keys import Shard
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    all_complete,
    create,
    make_config,
    running_replica,
)
from tests.support.scripts import WELL, streaming
from tests.support.upstreams import Upstream, running_script
from tests.support.waiting import wait_until

HOUR_MS = 3600_000
PARAM = "background_options.completion_window"


def within(window: str) -> dict[str, Any]:
    """The fields of a request that may take so long."""
    return {"background_options": {"completion_window": window}}


@dataclass
class Queue:
    """Pollux with one place, which a first job holds."""

    pollux: Replica
    upstream: Upstream
    first: str
    free: asyncio.Event
    created: list[str] = field(default_factory=list)

    async def add(self, text: str, key: str = ALICE, **body: Any) -> str:
        async with self.pollux.http(key) as http:
            answer = await http.post("responses", json={"model": CACHED, "input": text, "background": True, **body})
            assert answer.status == 200, await answer.text()
            self.created.append((await answer.json())["id"])
        return self.created[-1]

    async def served(self) -> list[str]:
        """Let them run; the inputs in the order in which the provider got them."""
        self.free.set()
        async with self.pollux.http(MASTER_KEY) as http:
            await all_complete(http, [self.first, *self.created])
        return [request.json["input"] for request in self.upstream.requests[1:]]


@asynccontextmanager
async def one_place(store_url: str, **pollux: Any) -> AsyncIterator[Queue]:
    free = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        await free.wait()
        return await streaming(*WELL)(request)

    async with running_script(handler) as upstream:
        config = make_config(upstream.base_url, worker_concurrency=1, **pollux)
        async with running_replica(config, store_url) as replica:
            first = await create(replica, "first")
            await wait_until(lambda: bool(upstream.requests), what="the first job holds the place")
            yield Queue(replica, upstream, first, free)


@pytest.fixture
async def queue(store_url: str) -> AsyncIterator[Queue]:
    async with one_place(store_url) as opened:
        yield opened


async def test_soonest_goes_before_2h_and_2h_before_8h_and_each_in_order(queue: Queue) -> None:
    for number, window in enumerate(("8h", "2h", "soonest", "8h", "2h", "soonest")):
        await queue.add(f"{window} {number}", **within(window))
    assert await queue.served() == ["soonest 2", "soonest 5", "2h 1", "2h 4", "8h 0", "8h 3"]


@pytest.mark.parametrize(
    "plain",
    [{}, {"background_options": None}, {"background_options": {}}, {"background_options": {"completion_window": None}}],
    ids=["no options", "null", "empty", "no window"],
)
async def test_who_says_nothing_wants_it_soonest(queue: Queue, plain: dict[str, Any]) -> None:
    await queue.add("2h", **within("2h"))
    await queue.add("plain", **plain)
    await queue.add("soonest", **within("soonest"))
    assert await queue.served() == ["plain", "soonest", "2h"]


async def test_flex_may_wait_8h_unless_a_window_says_otherwise(queue: Queue) -> None:
    await queue.add("flex", service_tier="flex")
    await queue.add("8h", **within("8h"))
    await queue.add("2h", **within("2h"))
    await queue.add("flex, soonest", service_tier="flex", **within("soonest"))
    await queue.add("priority", service_tier="priority")
    assert await queue.served() == ["flex, soonest", "priority", "2h", "flex", "8h"]


async def test_a_deadline_that_nears_makes_a_job_urgent(queue: Queue, admin: redis.Redis) -> None:
    for age_h, name in ((7.5, "8h, half an hour is left"), (6.5, "8h, for half an hour it may wait"), (0, "8h, new")):
        made_older(admin, await queue.add(name, **within("8h")), age_h)
    await queue.add("2h", **within("2h"))
    await queue.add("soonest", **within("soonest"))
    assert await queue.served() == [
        "8h, half an hour is left",
        "soonest",
        "8h, for half an hour it may wait",
        "2h",
        "8h, new",
    ]


async def test_where_runs_may_take_longer_jobs_become_urgent_sooner(store_url: str, admin: redis.Redis) -> None:
    async with one_place(store_url, max_run_s=2 * 3600) as queue:
        made_older(admin, await queue.add("8h", **within("8h")), hours=6.5)
        await queue.add("soonest")
        await queue.add("2h", **within("2h"))
        assert await queue.served() == ["8h", "soonest", "2h"], "and 2h still lets others go first"


async def test_windows_take_no_turn_from_another_owner(queue: Queue) -> None:
    await queue.add("alice may wait", **within("8h"))
    for number in range(3):
        await queue.add(f"bob {number}", BOB)
    assert await queue.served() == ["alice may wait", "bob 0", "bob 1", "bob 2"]


async def test_a_job_that_is_handed_over_keeps_its_window(store_url: str) -> None:
    async with one_place(store_url) as queue:
        await queue.add("2h, begun", **within("2h"))
        queue.upstream.requests.clear()
        async with queue.pollux.http() as http:
            await http.post(f"responses/{queue.first}/cancel")
        await wait_until(lambda: bool(queue.upstream.requests), what="the job with a window holds the place")
        await queue.add("2h, later", **within("2h"))
        await queue.add("soonest")
        assert queue.pollux.context is not None
        await queue.pollux.context.worker.drain(0.0)
        queue.upstream.requests.clear()
        queue.free.set()
        config = make_config(queue.upstream.base_url, worker_concurrency=1)
        async with running_replica(config, store_url) as other, other.http() as http:
            await all_complete(http, queue.created)
        assert [request.json["input"] for request in queue.upstream.requests] == ["soonest", "2h, begun", "2h, later"]


@pytest.mark.undescribed("a window that Pollux does not read is passed on, whatever it is")
async def test_a_provider_is_told_of_no_window_in_a_cached_run_and_of_any_in_the_other_modes(
    store_url: str,
) -> None:
    async with running_script(streaming(*WELL)) as upstream:
        async with running_replica(make_config(upstream.base_url), store_url) as pollux, pollux.http() as http:
            options: dict[str, Any] = {"background_options": {"completion_window": "2h", "continuation_id": "nightly"}}
            await all_complete(http, [await create(pollux, "cached", service_tier="flex", **options)])
            await http.post("responses", json={"model": NATIVE, "input": "native", "background": True, **options})
            await http.post("responses", json={"model": CACHED, "input": "proxied", "background_options": "any"})
        cached, native, proxied = [request.json for request in upstream.requests]
        assert "background_options" not in cached
        assert cached["service_tier"] == "flex"
        assert native["background_options"] == options["background_options"]
        assert proxied["background_options"] == "any", "whether that is right is for the provider to say"


@pytest.mark.parametrize("window", ["1h", "", "2H", "24h", " soonest"])
async def test_a_window_that_does_not_exist_is_refused(pollux: Replica, window: str) -> None:
    assert await refused(pollux, {"completion_window": window}) == (
        "invalid_value",
        PARAM,
        f"Invalid value for '{PARAM}': expected one of 'soonest', '2h', '8h'.",
    )


async def test_a_window_or_options_of_another_type_are_refused(pollux: Replica) -> None:
    code, param, message = await refused(pollux, {"completion_window": 2})
    assert (code, param) == ("invalid_type", PARAM)
    assert message == f"Invalid type for '{PARAM}': expected a string, but got an integer instead."
    code, param, message = await refused(pollux, "2h")
    assert (code, param) == ("invalid_type", "background_options")
    assert message == "Invalid type for 'background_options': expected an object, but got a string instead."


async def test_the_sdk_sends_a_window_and_reads_the_response(pollux: Replica) -> None:
    async with pollux.client() as client:
        made = await client.responses.create(
            model=CACHED, input="hello", background=True, background_options={"completion_window": "8h"}
        )
        assert made.status == "queued"
    async with pollux.http() as http:
        await all_complete(http, [made.id])  # nothing else is to be done: it does not wait for its window


async def refused(pollux: Replica, options: Any) -> tuple[str, str, str]:
    async with pollux.http() as http:
        body = {"model": CACHED, "input": "x", "background": True, "background_options": options}
        answer = await http.post("responses", json=body)
        assert answer.status == 400
        error = (await answer.json())["error"]
        assert error["type"] == "invalid_request_error"
        return error["code"], error["param"], error["message"]


def made_older(admin: redis.Redis, response_id: str, hours: float) -> None:
    """As if the queued response of alice had been created so many hours earlier."""
    admin.zincrby(Shard(0).queue("alice"), -hours * HOUR_MS, response_id)
