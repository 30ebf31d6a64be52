"""A rolling restart behind the shipped load balancers, under load: no client notices, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.support.balancers import running_balancer
from tests.support.replica import ALICE, CACHED, Replica, free_port, make_config, replica_process
from tests.support.sdk import new_sdk

JOB = "[[words=8]] [[delay_ms=200]]"
"""So long a drain lasts."""
UNFINISHED = ("queued", "in_progress")
BALANCERS = ("nginx", "haproxy")
GRACE_S = {"nginx": 0.1, "haproxy": 1.0}
"""nginx asks nobody; HAProxy needs two of its checks, which are made faster here."""


class Fleet:
    """Three replicas on ports of their own, which can be restarted."""

    def __init__(self, config: dict[str, Any], store_url: str, folder: Path) -> None:
        self._args = (config, store_url, folder)
        self.ports = [free_port() for _ in range(3)]
        self._running: dict[int, tuple[AsyncExitStack, Replica]] = {}

    async def start(self, port: int) -> None:
        stack = AsyncExitStack()
        self._running[port] = (stack, await stack.enter_async_context(replica_process(*self._args, port=port)))

    async def restart_all(self) -> None:
        """One after the other, each as soon as the one before is ready again."""
        for port in self.ports:
            stack, replica = self._running[port]
            assert replica.process is not None
            replica.signal(signal.SIGTERM)
            assert await asyncio.wait_for(replica.process.wait(), 15) == 0
            await stack.aclose()
            await self.start(port)

    async def close(self) -> None:
        for stack, _ in self._running.values():
            await stack.aclose()


@asynccontextmanager
async def behind(kind: str, upstream: str, store_url: str, folder: Path) -> AsyncIterator[tuple[Fleet, str]]:
    fleet = Fleet(make_config(upstream, drain_grace_s=GRACE_S[kind], drain_s=10), store_url, folder)
    try:
        await asyncio.gather(*map(fleet.start, fleet.ports))
        async with running_balancer(kind, fleet.ports, folder) as url:
            yield fleet, url
    finally:
        await fleet.close()


class Customers:
    """Clients of the official SDK, which repeats nothing on its own here: each failure is one."""

    def __init__(self, url: str) -> None:
        self._sdk = new_sdk(f"{url}/v1", ALICE)
        self.over = asyncio.Event()
        self.done: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        """How many requests each waiter has made for one response."""
        self.ids: list[str] = []

    async def come(self) -> None:
        """Until it is over."""
        async with self._sdk, asyncio.TaskGroup() as group:
            group.create_task(self._again(self.hurry, "creates"))
            for _ in range(2):
                group.create_task(self._again(self.wait_for_one, "waits"))
                group.create_task(self._again(self.prefer_to_wait, "preferred waits"))
                group.create_task(self._again(self.follow, "streams"))
                group.create_task(self._again(self.stay, "proxied streams"))

    async def _again(self, action: Any, name: str) -> None:
        while not self.over.is_set():
            await action()
            self.done[name] += 1

    async def _create(self, story: str = JOB, **options: Any) -> Response:
        created: Response = await self._sdk.responses.create(model=CACHED, input=story, background=True, **options)
        self.ids.append(created.id)
        return created

    async def hurry(self) -> None:
        await self._create("[[words=1]]")
        await asyncio.sleep(0.05)

    async def wait_for_one(self) -> None:
        await self._until_ended(await self._create())

    async def prefer_to_wait(self) -> None:
        created = await self._create(extra_headers={"Prefer": "wait=20"})
        self.asked[created.id] += 1
        await self._until_ended(created)

    async def _until_ended(self, response: Response) -> None:
        while response.status in UNFINISHED:
            self.asked[response.id] += 1
            response = await self._sdk.responses.retrieve(response.id, extra_query={"wait": 20})
        assert response.status == "completed", response

    async def follow(self) -> None:
        """A background stream, resumed where it is cut."""
        response_id, numbers, last = "", list[int](), ""
        stream: Any = await self._sdk.responses.create(model=CACHED, input=JOB, background=True, stream=True)
        while True:
            try:
                async for event in stream:
                    numbers.append(event.sequence_number)
                    last = event.type
                    if event.type == "response.created":
                        response_id = event.response.id
                        self.ids.append(response_id)
                break
            except openai.APIConnectionError:
                self.done["resumed streams"] += 1
                stream = await self._sdk.responses.retrieve(response_id, stream=True, starting_after=numbers[-1])
        assert last == "response.completed"
        assert numbers == list(range(len(numbers))), "each event once"

    async def stay(self) -> None:
        """A proxied stream can't be resumed: it has to be left to end."""
        stream = await self._sdk.responses.create(model=CACHED, input=JOB, stream=True)
        last = [event.type async for event in stream][-1]
        assert last == "response.completed"


@pytest.mark.parametrize("kind", BALANCERS)
async def test_a_rolling_restart_under_load_is_noticed_by_no_client(
    kind: str, simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with behind(kind, simulator, store_url, tmp_path) as (fleet, url):
        customers = Customers(url)
        async with asyncio.TaskGroup() as group:
            group.create_task(customers.come())
            await fleet.restart_all()
            customers.over.set()
        assert set(customers.done) >= {"waits", "preferred waits", "creates", "streams", "proxied streams"}
        # One, and another where a replica leaves. A busy machine may stretch a job beyond the leaving of a second one.
        assert max(customers.asked.values()) <= 3
        async with new_sdk(f"{url}/v1", ALICE) as sdk:
            kept = await asyncio.gather(*map(sdk.responses.retrieve, customers.ids))
        assert {response.status for response in kept} == {"completed"}, "none is lost"
