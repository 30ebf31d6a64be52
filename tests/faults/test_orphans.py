"""The jobs of a dead worker: taken over first, and never taken from one that lives."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import redis

from tests.support.replica import ALICE, create, ended, make_config, replica_process, running_replica, with_output
from tests.support.upstreams import runs_of
from tests.support.waiting import wait_until

KEY = {"Authorization": f"Bearer {ALICE}"}


@pytest.mark.slow
async def test_an_orphan_comes_before_the_backlog_also_where_there_is_one_place(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, lease_s=1, worker_concurrency=1)
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=KEY))
        orphan = await create(victim, "orphan [[words=40]] [[delay_ms=30]]")
        await with_output(victim, orphan)
        survivor = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        # One is running for a good second, five wait behind it.
        backlog = [await create(survivor, f"job-{n} [[words=20]] [[delay_ms=50]]") for n in range(6)]
        await victim.kill()

        ends: dict[str, float] = {}

        async def end_of(response_id: str) -> None:
            answer = await http.get(f"{survivor.url}/v1/responses/{response_id}?wait=50")
            assert (await answer.json())["status"] == "completed"
            ends[response_id] = time.monotonic()

        await asyncio.gather(*map(end_of, (orphan, *backlog)))
        later = [one for one in backlog if ends[one] > ends[orphan]]
        assert len(later) >= 3, "it was taken over as soon as its lease had run out and the place was free"


async def test_a_server_that_stood_still_makes_no_orphans(simulator: str, store_url: str, admin: redis.Redis) -> None:
    """Its clock went on and no lease could be renewed: still nobody's job is taken away."""
    if not store_url.startswith("embedded://"):
        pytest.skip("the server is not ours to stop")
    config = make_config(simulator, lease_s=1)
    async with (
        running_replica(config, store_url) as one,
        running_replica(config, store_url),
        one.http() as http,
    ):
        ids = [await create(one, f"job-{n} [[words=80]] [[delay_ms=50]]") for n in range(10)]
        for response_id in ids:
            await with_output(one, response_id)
        await asyncio.sleep(1.1)  # both may reclaim by now: their own start lies a lease back
        pid = int(admin.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(1.5)  # longer than a lease, shorter than the patience with the store
        finally:
            os.kill(pid, signal.SIGCONT)
        for response_id in ids:
            assert (await ended(http, response_id))["status"] == "completed"
    assert await runs_of(simulator) == 10, "none was begun twice"


async def test_a_lease_of_a_second_is_taken_over_too(simulator: str, store_url: str, tmp_path: Path) -> None:
    config = make_config(simulator, lease_s=1)
    async with AsyncExitStack() as stack:
        victim = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        response_id = await create(victim, "x [[words=40]] [[delay_ms=60]]")
        await with_output(victim, response_id)
        survivor = await stack.enter_async_context(running_replica(config, store_url))
        await victim.kill()
        async with survivor.http() as http:
            await wait_until(lambda: _runs(simulator, 2), timeout_s=8, what="a second run")
            assert (await ended(http, response_id))["status"] == "completed"


async def _runs(simulator: str, count: int) -> bool:
    return await runs_of(simulator) >= count
