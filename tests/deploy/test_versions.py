"""An upgrade and its rollback under load: the version before this one and this one side by side on one store."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.receiver import IMPATIENT, running_receiver
from tests.support.replica import ALICE, CACHED, Replica, all_complete, free_port, make_config, replica_process
from tests.support.sse import events_of
from tests.support.subscribers import MISSED
from tests.support.versions import ROOT, unpack_previous
from tests.support.waiting import wait_until

SECRET = "whsec_" + "c2VjcmV0" * 4
SURVIVABLE = "survivable"


class Pair:
    """Two replicas on ports that stay, each of the one version or the other."""

    def __init__(self, config: dict[str, Any], store_url: str, folder: Path, previous: Path) -> None:
        self._args = (config, store_url, folder)
        self._trees = {"previous": previous, "this": ROOT}
        self.ports = [free_port(), free_port()]
        self.urls = [f"http://127.0.0.1:{port}/v1/" for port in self.ports]
        self._running: dict[int, tuple[AsyncExitStack, Replica]] = {}

    async def start(self, number: int, version: str) -> None:
        stack = AsyncExitStack()
        tree = self._trees[version]
        before = f"{IMPATIENT}\nimport server\nassert server.__file__ == {str(tree / 'server' / '__init__.py')!r}"
        process = replica_process(*self._args, before=before, port=self.ports[number], tree=tree)
        self._running[number] = (stack, await stack.enter_async_context(process))

    async def swap(self, number: int, version: str, how: signal.Signals) -> None:
        """Replace one of them, after a drain or after `kill -9`."""
        stack, replica = self._running[number]
        assert replica.process is not None
        replica.signal(how)
        status = await asyncio.wait_for(replica.process.wait(), 15)
        assert status == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        await stack.aclose()
        await self.start(number, version)

    async def close(self) -> None:
        for stack, _ in self._running.values():
            await stack.aclose()


class Traffic:
    """Clients that do each thing at one replica and the next at the other. They try again where a replica is away."""

    def __init__(self, urls: list[str], http: aiohttp.ClientSession) -> None:
        self._urls, self._http = itertools.cycle(urls), http
        self._texts = map("story {}".format, itertools.count())
        self.done: Counter[str] = Counter()
        self.made: dict[str, str] = {}
        """The text of each response that has to be completed, by its id."""
        self.cancelled: set[str] = set()
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Until it is over."""
        async with asyncio.TaskGroup() as group:
            for number in (1, 2):
                group.create_task(self._again(self.create, f"creates {number}"))
                group.create_task(self._again(self.follow, f"streams {number}"))
                group.create_task(self._again(self.cancel, f"cancels {number}"))

    async def _again(self, action: Callable[[], Awaitable[None]], name: str) -> None:
        while not self.over.is_set():
            await action()
            self.done[name] += 1

    async def progress(self) -> None:
        """Wait until each client has begun and ended something since now."""
        before = self.done.copy()
        names = [f"{what} {number}" for what in ("creates", "streams", "cancels") for number in (1, 2)]
        await wait_until(
            lambda: all(self.done[name] >= before[name] + 2 for name in names), timeout_s=20, what="all get on"
        )

    async def _ask(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """The answer of whichever replica there is."""
        for url in self._urls:
            try:
                answer = await self._http.request(method, f"{url}{path}", **options)
            except MISSED:
                await asyncio.sleep(0.05)
                continue
            if answer.status != 503:
                assert answer.status == 200, await answer.text()
                return answer
            answer.close()
            await asyncio.sleep(0.05)
        raise AssertionError("there is always another one")

    async def _created(self, text: str, model: str = CACHED, *, stream: bool = False) -> str:
        body = {"model": model, "input": text, "background": True, "stream": stream}
        while True:
            answer = await self._ask("POST", "responses", json=body, headers={"Idempotency-Key": text})
            try:
                created = (await anext(events_of(answer)))["response"] if stream else await answer.json()
            except (*MISSED, StopAsyncIteration):
                continue
            response_id: str = created["id"]
            return response_id

    async def create(self) -> None:
        text = f"{next(self._texts)} [[words=6]] [[delay_ms=20]]"
        self.made[await self._created(text)] = text
        await asyncio.sleep(0.05)

    async def cancel(self) -> None:
        """Created at one replica, cancelled at another."""
        response_id = await self._created(f"{next(self._texts)} [[words=500]] [[delay_ms=50]]")
        await asyncio.sleep(0.1)
        while True:
            try:
                response = await (await self._ask("POST", f"responses/{response_id}/cancel")).json()
            except MISSED:
                continue
            break
        assert response["status"] == "cancelled"
        self.cancelled.add(response_id)

    async def follow(self) -> None:
        """A stream that is left after each few events, and resumed at the other replica."""
        text = f"{next(self._texts)} [[words=20]] [[delay_ms=20]]"
        # The provider goes on with it when its worker is killed, so its log is never begun again.
        response_id = await self._created(text, SURVIVABLE, stream=True)
        self.made[response_id] = text
        numbers, last = list[int](), ""
        while last != "response.completed":
            after = {"starting_after": str(numbers[-1])} if numbers else {}
            stream = await self._ask("GET", f"responses/{response_id}", params={"stream": "true", **after})
            leave_at = len(numbers) + 7
            try:
                async for event in events_of(stream):
                    numbers.append(event["sequence_number"])
                    last = event["type"]
                    if len(numbers) >= leave_at:
                        break
            except MISSED:
                continue
        assert numbers == list(range(len(numbers))), "each event once"


@pytest.mark.slow
async def test_an_upgrade_and_its_rollback_under_load_lose_nothing(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(running_receiver())
        hook = {"url": receiver.url, "secret": SECRET}
        config = make_config(simulator, lease_s=1, drain_s=5, webhooks=[hook], webhook_allow_private=True)
        upstream = config["model_list"][0]
        config["model_list"].append({**upstream, "model_name": SURVIVABLE, "model_info": {"upstream_background": True}})
        pair = Pair(config, store_url, tmp_path, unpack_previous(tmp_path / "previous"))
        stack.push_async_callback(pair.close)
        http = await stack.enter_async_context(aiohttp.ClientSession(headers={"Authorization": f"Bearer {ALICE}"}))
        await asyncio.gather(pair.start(0, "previous"), pair.start(1, "previous"))
        traffic = Traffic(pair.urls, http)
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.run())
            await traffic.progress()
            for number, version, how in (
                (1, "this", signal.SIGTERM),  # side by side
                (0, "this", signal.SIGKILL),  # upgraded; this version takes over what the other one was killed at
                (1, "previous", signal.SIGKILL),  # side by side again; and the other way round
                (0, "previous", signal.SIGTERM),  # taken back
            ):
                await pair.swap(number, version, how)
                await traffic.progress()
            traffic.over.set()

        http_of_one = await stack.enter_async_context(
            aiohttp.ClientSession(pair.urls[0], headers={"Authorization": f"Bearer {ALICE}"})
        )
        for response, text in zip(await all_complete(http_of_one, traffic.made), traffic.made.values(), strict=True):
            assert text.partition(" [[")[0] in response["output"][-1]["content"][0]["text"]
        ended = traffic.made.keys() | traffic.cancelled

        def told() -> bool:
            return ended <= {event["data"]["id"] for event in receiver.events()}

        await wait_until(told, timeout_s=10, what="webhooks have told of every end")
