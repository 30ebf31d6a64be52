"""Several deployments of one model: who is asked, who is left alone, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.support.obliging import obliging
from tests.support.refusals import refusal
from tests.support.replica import CACHED, NATIVE, Replica, create, make_config, running_replica
from tests.support.upstreams import RequestHandler, Upstream, running_script
from tests.support.waiting import wait_until


def config_for(*upstreams: Upstream, router: dict[str, Any] | None = None, **pollux: Any) -> dict[str, Any]:
    """The usual config, with a deployment of both models at each upstream."""
    config = make_config(upstreams[0].base_url, **pollux)
    for upstream in upstreams[1:]:
        config["model_list"] += make_config(upstream.base_url)["model_list"]
    return {**config, "router_settings": router or {}}


def limited(config: dict[str, Any], **params: Any) -> dict[str, Any]:
    for entry in config["model_list"]:
        entry["litellm_params"] |= params
    return config


async def completed(pollux: Replica) -> bool:
    async with pollux.http() as http:
        answer = await http.post(
            "responses", json={"model": CACHED, "input": "hi", "background": True}, headers={"Prefer": "wait=30"}
        )
        status: str = (await answer.json())["status"]
        return status == "completed"


@dataclass
class Gate:
    """An upstream that holds its answers until it is opened, and counts what it holds."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    held: int = 0
    most: int = 0

    def handler(self) -> RequestHandler:
        oblige = obliging()

        async def hold(request: web.Request) -> web.StreamResponse:
            self.held += 1
            self.most = max(self.most, self.held)
            try:
                await self.opened.wait()
                return await oblige(request)
            finally:
                self.held -= 1

        return hold


@asynccontextmanager
async def gates(count: int) -> AsyncIterator[list[tuple[Gate, Upstream]]]:
    async with AsyncExitStack() as stack:
        made = [Gate() for _ in range(count)]
        yield [(gate, await stack.enter_async_context(running_script(gate.handler()))) for gate in made]


async def refuse(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "down"}}, status=500)


async def test_a_dead_deployment_is_left_alone_until_it_has_cooled_down(store_url: str) -> None:
    answer: list[RequestHandler] = [refuse]

    async def changeable(request: web.Request) -> web.StreamResponse:
        return await answer[0](request)

    async with (
        running_script(changeable) as dead,
        running_script(obliging()) as well,
        running_replica(config_for(dead, well, router={"cooldown_time": 1.5}), store_url) as pollux,
    ):

        async def asked() -> bool:
            assert await completed(pollux)
            return bool(dead.requests)

        await wait_until(asked, what="the dead one was asked once")
        for _ in range(5):
            assert await completed(pollux)
        assert len(dead.requests) == 1, "it cools down"
        answer[0] = obliging()

        async def back() -> bool:
            assert await completed(pollux)
            return len(dead.requests) > 1

        await wait_until(back, what="it is asked again, and well")


async def test_a_proxied_request_goes_elsewhere_as_well(store_url: str) -> None:
    async with (
        running_script(refuse) as dead,
        running_script(obliging()) as well,
        running_replica(config_for(dead, well, router={"cooldown_time": 60}), store_url) as pollux,
        pollux.http() as http,
    ):
        for _ in range(10):
            assert (await http.post("responses", json={"model": CACHED, "input": "hi"})).status == 200
        assert len(dead.requests) <= 1


async def test_where_all_are_cooling_they_are_still_asked(store_url: str) -> None:
    async with (
        running_script(refuse) as one,
        running_script(refuse) as other,
        running_replica(config_for(one, other, router={"cooldown_time": 600}), store_url) as pollux,
    ):
        assert not await completed(pollux)
        assert len(one.requests) + len(other.requests) == 3
        assert one.requests
        assert other.requests


async def test_runs_wait_for_a_place(store_url: str) -> None:
    async with gates(1) as [(gate, upstream)]:
        config = limited(config_for(upstream), max_parallel_requests=2)
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            made = [await create(pollux, "hi") for _ in range(8)]
            await wait_until(lambda: gate.held == 2)
            cancelled = made.pop()
            assert (await http.post(f"responses/{cancelled}/cancel")).status == 200
            gate.opened.set()
            for response_id in made:
                response = await (await http.get(f"responses/{response_id}?wait=20")).json()
                assert response["status"] == "completed"
        assert gate.most == 2
        assert len(upstream.requests) == 7, "who was cancelled while waiting asked nobody"


async def test_other_requests_wait_shortly_then_are_refused(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.relay.PLACE_PATIENCE_S", 0.05)
    async with gates(1) as [(gate, upstream)]:
        config = limited(config_for(upstream), max_parallel_requests=1)
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            body = {"model": NATIVE, "input": "hi", "background": True}
            first = asyncio.create_task(http.post("responses", json=body))
            await wait_until(lambda: gate.held == 1)
            refused = await refusal(await http.post("responses", json=body))
            assert refused.fields == (429, "requests", "rate_limit_exceeded", None)
            assert 1 <= int(refused.headers["Retry-After"]) <= 120
            gate.opened.set()
            made = await (await first).json()
            gate.opened.clear()
            second = asyncio.create_task(http.post("responses", json=body))
            await wait_until(lambda: gate.held == 1)
            reading = asyncio.create_task(http.get(f"responses/{made['id']}"))
            await wait_until(lambda: gate.held == 2, what="who reads needs no place")
            gate.opened.set()
            assert [(await task).status for task in (second, reading)] == [200, 200]


async def test_the_least_in_flight_is_asked(store_url: str) -> None:
    async with gates(3) as made:
        config = config_for(*(upstream for _, upstream in made))
        async with running_replica(config, store_url) as pollux:
            for _ in range(9):
                await create(pollux, "hi")
            await wait_until(lambda: sum(gate.held for gate, _ in made) == 9)
            assert [gate.held for gate, _ in made] == [3, 3, 3]


@pytest.mark.parametrize("setting", ["pollux", "deployment"])
async def test_one_that_does_not_begin_to_answer_is_given_up_and_another_one_asked(
    store_url: str, setting: str
) -> None:
    async with gates(1) as [(gate, silent)], running_script(obliging()) as well:
        limit = {"first_byte_timeout_s": 1} if setting == "pollux" else {}
        config = config_for(silent, well, router={"cooldown_time": 60}, **limit)
        if setting == "deployment":
            limited(config, stream_timeout=1)
        async with running_replica(config, store_url) as pollux:

            async def asked() -> bool:
                assert await completed(pollux)
                return bool(silent.requests)

            await wait_until(asked, what="the silent one was asked")
            await wait_until(lambda: gate.held == 0, what="its connection is closed")
            assert len(silent.requests) == 1


async def test_a_proxied_request_that_was_not_answered_in_time_is_asked_nowhere_again(store_url: str) -> None:
    """The provider may be at work on it, and a second one would be paid for as well."""
    async with gates(2) as [(_, one), (_, other)]:
        config = config_for(one, other, router={"num_retries": 3}, first_byte_timeout_s=1)
        limited(config, timeout=1)
        async with running_replica(config, store_url) as pollux, pollux.http() as http:
            assert (await http.post("responses", json={"model": CACHED, "input": "hi"})).status == 504
            assert len(one.requests) + len(other.requests) == 1
