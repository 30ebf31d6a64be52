"""The work whose cost is measured: each a coroutine that returns its figures by name."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson

from tests.bench.stage import HEADERS, Server, Stage, memory_bytes
from tests.support.replica import CACHED

Figures = dict[str, float]
UNFINISHED = ("queued", "in_progress")
ARRIVALS = 500
"""New jobs a second: what one core can begin beside its other work."""


def new_session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=120)
    return aiohttp.ClientSession(connector=connector, headers=HEADERS, timeout=aiohttp.ClientTimeout(total=600))


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def many(count: int, at_once: int, act: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """So many acts, so many of them at a time; their results in no order."""
    numbers, results = itertools.count(), []

    async def one_after_the_other() -> None:
        while (number := next(numbers)) < count:
            results.append(await act(number))

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return results


def body(text: str, **fields: Any) -> bytes:
    return orjson.dumps({"model": CACHED, "input": text, **fields})


async def read(http: aiohttp.ClientSession, method: str, url: str, data: bytes | None = None, **headers: str) -> bytes:
    async with http.request(method, url, data=data, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def create(http: aiohttp.ClientSession, server: Server, text: str, **fields: Any) -> tuple[str, float]:
    """A background response: its id, and how long the answer took."""
    began = time.monotonic()
    made = orjson.loads(await read(http, "POST", f"{server.url}/responses", body(text, background=True, **fields)))
    return made["id"], time.monotonic() - began


async def ended(http: aiohttp.ClientSession, server: Server, response_id: str) -> tuple[dict[str, Any], float]:
    """Long-wait for its end: the object, and when it was here."""
    while True:
        raw = await read(http, "GET", f"{server.url}/responses/{response_id}?wait=50")
        at = time.monotonic()
        response = orjson.loads(raw)
        if response["status"] not in UNFINISHED:
            return response, at


def text_of(response: dict[str, Any]) -> str:
    text: str = response["output"][0]["content"][0]["text"]
    return text


# ---- Proxied


async def proxied_post(stage: Stage) -> Figures:
    """A POST whose answer is 1.5 KB, through Pollux and through the least proxy."""
    count = 3000

    async def cost_us(http: aiohttp.ClientSession, server: Server) -> float:
        async def post(_: int) -> None:
            await read(http, "POST", f"{server.url}/responses", body("bytes=1000"))

        await many(300, 16, post)
        before = server.cpu_s()
        await many(count, 16, post)
        return (server.cpu_s() - before) / count * 1e6

    async with stage.pollux() as pollux, new_session() as http:
        ours = await cost_us(http, pollux)
        least = await cost_us(http, stage.minimal)
    return {"proxied POST, µs": ours, "minimal proxy POST, µs": least, "proxied POST / minimal": ours / least}


async def proxied_stream(stage: Stage) -> Figures:
    """A burst of 2,000 events; then the delay of the first event of many short ones."""
    events, streams = 2000, 20

    async def cost_us(http: aiohttp.ClientSession, server: Server) -> float:
        async def stream(_: int) -> None:
            await read(http, "POST", f"{server.url}/responses", body(f"events={events}", stream=True))

        await many(4, 2, stream)
        before = server.cpu_s()
        await many(streams, 2, stream)
        return (server.cpu_s() - before) / streams / events * 1e6

    async def first_ms(http: aiohttp.ClientSession, server: Server) -> float:
        delays = []
        for _ in range(100):
            data = body("events=3 rate=50", stream=True)
            async with http.post(f"{server.url}/responses", data=data) as answer:
                first = await answer.content.readuntil(b"\n\n")
                at = time.monotonic()
                sent_at = float(orjson.loads(first.split(b"\ndata: ")[1])["response"]["metadata"]["sent_at"])
                delays.append((at - sent_at) * 1e3)
        return statistics.median(delays)

    async with stage.pollux() as pollux, new_session() as http:
        ours, least = await cost_us(http, pollux), await cost_us(http, stage.minimal)
        delay, least_delay = await first_ms(http, pollux), await first_ms(http, stage.minimal)
    return {
        "proxied stream, µs per event": ours,
        "minimal proxy stream, µs per event": least,
        "first event later than minimal, ms": delay - least_delay,
    }


# ---- Cached


async def _run_jobs(stage: Stage, jobs: int, events: int, rate: int, workers: int = 1) -> Figures:
    """So many at once, each with a client that long-waits. They come one after the other, `ARRIVALS` a second."""
    submits, late, nominal_s = [], [], events / rate
    expected = len(text_of(await _reference(stage, events)))

    async with stage.pollux(workers=workers, worker_concurrency=2000) as pollux, new_session() as http:
        await many(20, 20, lambda _: _one(http, pollux, 5, 0))
        before, bytes_before, commands = pollux.cpus_s(), pollux.store_bytes(), pollux.store_commands()
        began = time.monotonic()

        async def job(_: int) -> tuple[bool, float, float]:
            created_at = time.monotonic()
            response_id, took = await create(http, pollux, f"events={events} rate={rate}")
            submits.append(took * 1e3)
            response, at = await ended(http, pollux, response_id)
            whole = response["status"] == "completed" and len(text_of(response)) == expected
            late.append(at - created_at - nominal_s)
            return whole, at - float(response["metadata"]["sent_at"]), at

        async def come(number: int) -> tuple[bool, float, float]:
            await asyncio.sleep(number / ARRIVALS)
            return await job(number)

        outcomes = await asyncio.gather(*map(come, range(jobs)))
        spent = [used - had for used, had in zip(pollux.cpus_s(), before, strict=True)]
        took_s = time.monotonic() - began
        sent, called = pollux.store_bytes() - bytes_before, pollux.store_commands() - commands
    latencies = [delay * 1e3 for _, delay, _ in outcomes]
    return {
        "whole": sum(whole for whole, _, _ in outcomes) / jobs,
        "µs per event": sum(spent) / jobs / events * 1e6,
        "submit p50, ms": percentile(submits, 0.5),
        "submit p99, ms": percentile(submits, 0.99),
        "end to client p50, ms": percentile(latencies, 0.5),
        "end to client p99, ms": percentile(latencies, 0.99),
        "late p99, s": percentile(late, 0.99),
        "to the store, bytes per event": sent / jobs / events,
        "calls of the store per event": called / jobs / events,
        "took, s": took_s,
        "events/s of CPU of the busiest": jobs * events / max(spent),
    }


async def _reference(stage: Stage, events: int) -> dict[str, Any]:
    async with new_session() as http:
        raw = await read(http, "POST", f"{stage.upstream}/responses", body(f"events={events}", stream=True))
    frame = raw.rstrip().rpartition(b"\n\n")[2]
    response: dict[str, Any] = orjson.loads(frame.split(b"\ndata: ")[1])["response"]
    return response


async def _one(http: aiohttp.ClientSession, server: Server, events: int, rate: int) -> dict[str, Any]:
    response_id, _ = await create(http, server, f"events={events} rate={rate}")
    return (await ended(http, server, response_id))[0]


async def cached_50(stage: Stage) -> Figures:
    """50 jobs of 50 events a second."""
    found = await _run_jobs(stage, jobs=50, events=400, rate=50)
    return {f"50 jobs: {name}": value for name, value in found.items()}


async def cached_1000(stage: Stage) -> Figures:
    """1,000 jobs of 50 events a second, all at once, on one process."""
    found = await _run_jobs(stage, jobs=1000, events=400, rate=50)
    return {f"1000 jobs: {name}": value for name, value in found.items()}


async def cached_burst(stage: Stage) -> Figures:
    """Upstreams that send as fast as they can."""
    events, jobs = 20_000, 8
    async with stage.pollux() as pollux, new_session() as http:
        await _one(http, pollux, 2000, 0)
        before, bytes_before = pollux.cpu_s(), pollux.store_bytes()
        responses = await asyncio.gather(*(_one(http, pollux, events, 0) for _ in range(jobs)))
        spent = pollux.cpu_s() - before
        sent = pollux.store_bytes() - bytes_before
        assert all(response["status"] == "completed" for response in responses)
    return {
        "burst: events/s per process": jobs * events / spent,
        "burst: to the store, bytes per event": sent / jobs / events,
    }


async def linear(stage: Stage) -> Figures:
    """Four times the events: how many times the bytes in the store."""
    sent = []
    async with stage.pollux() as pollux, new_session() as http:
        for events in (1000, 4000):
            before = pollux.store_bytes()
            await _one(http, pollux, events, 500)
            sent.append(pollux.store_bytes() - before)
    return {"4 x the events: x the bytes": sent[1] / sent[0]}


# ---- Readers


async def held(http: aiohttp.ClientSession, server: Server, events: int, **fields: Any) -> str:
    """A response that runs, has so many events, and gets no more."""
    response_id, _ = await create(http, server, f"events={events} hold=1", **fields)
    seen = ""
    while len(seen.split()) < events // 2:  # some of the words are commas
        raw = await read(http, "GET", f"{server.url}/responses/{response_id}")
        output = orjson.loads(raw)["output"]
        seen = output[0]["content"][0]["text"] if output and output[0]["content"] else ""
    return response_id


async def polls(stage: Stage) -> Figures:
    """Polling a running response of 1,000 events, and a finished one."""
    count = 3000
    async with stage.pollux() as pollux, new_session() as http:
        running = await held(http, pollux, 1000)
        finished = (await _one(http, pollux, 1000, 0))["id"]
        rates = []
        for response_id in (running, finished):
            url = f"{pollux.url}/responses/{response_id}"

            async def poll(_: int, url: str = url) -> None:
                await read(http, "GET", url)

            await many(200, 16, poll)
            before = pollux.cpu_s()
            await many(count, 16, poll)
            rates.append(count / (pollux.cpu_s() - before))
    return {"polls/s per core, running": rates[0], "polls/s per core, finished": rates[1]}


async def subscribers(stage: Stage) -> Figures:
    """200 readers of the stream of one running response."""
    readers, events = 200, 1000
    async with stage.pollux() as pollux, new_session() as http:
        data = body(f"events={events} rate=100", background=True, stream=True)
        async with http.post(f"{pollux.url}/responses", data=data) as answer:
            first = await answer.content.readuntil(b"\n\n")
        response_id = orjson.loads(first.split(b"\ndata: ")[1])["response"]["id"]
        before = pollux.cpu_s()

        async def follow(_: int) -> int:
            raw = await read(http, "GET", f"{pollux.url}/responses/{response_id}?stream=true")
            return raw.count(b"\nevent: ") + 1

        counts = await many(readers, readers, follow)
        spent = pollux.cpu_s() - before
        assert min(counts) > events, counts
    return {"subscribers: µs per event and reader": spent / sum(counts) * 1e6}


async def waiters(stage: Stage) -> Figures:
    """10,000 long-waiters on one process: asleep, then all woken."""
    responses, each = 100, 100
    async with stage.pollux() as pollux, new_session() as http:
        ids = await many(responses, 20, lambda _: held(http, pollux, 10))
        (pid,) = pollux.pids
        empty = memory_bytes(pid)
        awake: list[float] = []

        async def wait(response_id: str) -> None:
            await read(http, "GET", f"{pollux.url}/responses/{response_id}?wait=55")
            awake.append(time.monotonic())

        tasks = [asyncio.create_task(wait(ids[n % responses])) for n in range(responses * each)]
        await asyncio.sleep(12)  # all have arrived and sleep
        full, before = memory_bytes(pid), pollux.cpu_s()
        await asyncio.sleep(5)
        idle = (pollux.cpu_s() - before) / 5
        began = time.monotonic()
        await many(responses, responses, lambda n: read(http, "POST", f"{pollux.url}/responses/{ids[n]}/cancel"))
        await asyncio.gather(*tasks)
    return {
        "10,000 waiters: KB each": (full - empty) / len(tasks) / 1024,
        "10,000 waiters: idle CPU, %": idle * 100,
        "10,000 waiters: all awake after, s": max(awake) - began,
    }


# ---- The process itself


async def starting(stage: Stage) -> Figures:
    """From nothing to ready, the embedded store included; and what it takes while it does nothing."""
    async with stage.pollux() as pollux:
        await asyncio.sleep(1)
        (pid,) = pollux.pids
        return {"start to ready, s": pollux.ready_s, "idle memory, MB": memory_bytes(pid) / 1e6}


async def two_workers(stage: Stage) -> Figures:
    """Twice the jobs on two processes: how much of twice the work each second of the busier one's CPU does.

    (By the clock it can't be measured on two cores: the load and the store need the same ones.)
    """
    figure = "events/s of CPU of the busiest"
    one = (await _run_jobs(stage, jobs=300, events=200, rate=50))[figure]
    two = (await _run_jobs(stage, jobs=600, events=200, rate=50, workers=2))[figure]
    return {"two workers: x one": two / one}


async def large(stage: Stage) -> Figures:
    """1 MB of input, 5 MB of output, 100,000 events in one response: all whole, and nobody else has to wait."""
    pauses: list[float] = []
    async with stage.pollux() as pollux, new_session() as http:

        async def probe() -> None:
            while True:
                began = time.monotonic()
                await read(http, "GET", f"{pollux.url.removesuffix('/v1')}/livez")
                pauses.append(time.monotonic() - began)
                await asyncio.sleep(0.002)

        probing = asyncio.create_task(probe())
        long_input = "word " * 200_000
        took = {}
        for name, text in (
            ("1 MB input", f"{long_input} events=10"),
            ("5 MB output", "events=1000 size=1000"),
            ("100,000 events", "events=100000"),
        ):
            began = time.monotonic()
            response_id, _ = await create(http, pollux, text)
            response, _ = await ended(http, pollux, response_id)
            assert response["status"] == "completed", response["error"]
            took[f"{name}, s"] = time.monotonic() - began
        probing.cancel()
    return {**took, "longest pause of others, ms": max(pauses) * 1e3}
