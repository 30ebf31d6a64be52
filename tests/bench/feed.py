"""What status events cost: the jobs that they tell of, the subscribers, and the way from one to the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from server.protocol.webhook_secrets import encode_secret
from storage.keys import Shard
from tests.bench.stage import Server, Stage, cpu_s, memory_bytes
from tests.bench.workloads import Figures, create, ended, many, new_session, percentile
from tests.support.receiver import running_receiver

TRANSITIONS = 3
"""Of each job: it is queued, in progress, and ends."""


def store_pid(server: Server) -> int:
    assert server.store is not None
    about: Any = server.store.info("server")
    return int(about["process_id"])


async def ids_of(http: aiohttp.ClientSession, server: Server) -> AsyncIterator[str]:
    """The id of each event for a subscriber, as they come; at first that of the opening."""
    async with http.get(f"{server.url}/events") as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if line.startswith(b"id: "):
                yield line[4:-1].decode()


async def short_jobs(stage: Stage) -> Figures:
    """Jobs that do little else than change their status: their cost is mostly that of telling so."""
    jobs = 1500
    async with stage.pollux() as pollux, new_session() as http:

        async def job(_: int) -> None:
            response_id = (await create(http, pollux, "events=5"))[0]
            await ended(http, pollux, response_id)

        await many(200, 50, job)
        store = store_pid(pollux)
        before, store_before = pollux.cpu_s(), cpu_s(store)
        await many(jobs, 50, job)
        spent, store_spent = pollux.cpu_s() - before, cpu_s(store) - store_before
        assert pollux.store is not None
        count: Any = pollux.store.xlen(Shard(0).feed)
        used: Any = pollux.store.memory_usage(Shard(0).feed, samples=0)
    return {
        "short job, µs": spent / jobs * 1e6,
        "short job, µs in the store": store_spent / jobs * 1e6,
        "status event, bytes in the store": used / count,
    }


async def feed_latency(stage: Stage) -> Figures:
    """50 jobs of 50 events a second at any time: from a change of status to a subscriber that hears of all.

    The change is dated in whole milliseconds, which are cut off: half a one of each figure is not real.
    """
    jobs = 200
    late: list[float] = []
    async with stage.pollux() as pollux, new_session() as http:

        async def listen() -> None:
            opened = False
            async for at in ids_of(http, pollux):
                if opened:
                    late.append(time.time() * 1e3 - float(at.partition(":")[2].partition("-")[0]))
                opened = True
                begun.set()
                if len(late) == TRANSITIONS * jobs:
                    return

        begun = asyncio.Event()
        listening = asyncio.create_task(listen())
        await begun.wait()

        async def job(number: int) -> None:
            response_id, _ = await create(http, pollux, f"events={50 + number} rate=50")
            await ended(http, pollux, response_id)

        await many(jobs, 50, job)
        await listening
    return {
        "50 jobs: status to subscriber p50, ms": percentile(late, 0.5),
        "50 jobs: status to subscriber p99, ms": percentile(late, 0.99),
    }


async def feed_subscribers(stage: Stage) -> Figures:
    """5,000 subscribers on one process: asleep, then told of some jobs."""
    subscribers, jobs = 5000, 10
    async with stage.pollux() as pollux, new_session() as http:
        response_id, _ = await create(http, pollux, "events=5")
        await ended(http, pollux, response_id)
        (pid,) = pollux.pids
        empty, opened = memory_bytes(pid), 0

        async def listen() -> None:
            nonlocal opened
            count = 0
            async for _ in ids_of(http, pollux):
                opened += count == 0
                count += 1
                if count == 1 + TRANSITIONS * jobs:
                    return

        tasks = [asyncio.create_task(listen()) for _ in range(subscribers)]
        while opened < subscribers:
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)  # all sleep
        full, before = memory_bytes(pid), pollux.cpu_s()
        await asyncio.sleep(5)
        idle, before = (pollux.cpu_s() - before) / 5, pollux.cpu_s()
        for _ in range(jobs):
            response_id, _ = await create(http, pollux, "events=5")
            await ended(http, pollux, response_id)
        await asyncio.gather(*tasks)
        spent = pollux.cpu_s() - before
    return {
        "5,000 subscribers: KB each": (full - empty) / subscribers / 1024,
        "5,000 subscribers: idle CPU, %": idle * 100,
        "5,000 subscribers: µs per event each": spent / subscribers / jobs / TRANSITIONS * 1e6,
    }


async def webhooks(stage: Stage) -> Figures:
    """Each job owes an event to one endpoint, which takes it at once."""
    jobs = 1000
    async with running_receiver() as receiver:
        endpoint = {"url": f"{receiver.url}/", "secret": encode_secret(bytes(32))}
        async with stage.pollux(webhooks=[endpoint], webhook_allow_private=True) as pollux, new_session() as http:

            async def job(_: int) -> None:
                response_id, _at = await create(http, pollux, "events=5")
                await ended(http, pollux, response_id)

            async def told(count: int) -> None:
                while len({event["id"] for event in receiver.events()}) < count:
                    await asyncio.sleep(0.02)

            await many(100, 50, job)
            await told(100)
            before, began = pollux.cpu_s(), time.perf_counter()
            await many(jobs, 50, job)
            await told(100 + jobs)
            took, spent = time.perf_counter() - began, pollux.cpu_s() - before
    return {"webhooks/s": jobs / took, "short job and its webhook, µs": spent / jobs * 1e6}
