"""The same work through LiteLLM's proxy, for comparison.

    python -m tests.bench.litellm PATH/TO/litellm

LiteLLM lives in a virtual environment of its own (`make bench-litellm` makes it). Its polling responses can't be waited
for, so the clients poll, four times a second.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import redis
import uvloop
import yaml

from storage.embedded_binary import _candidates
from tests.bench.__main__ import table
from tests.bench.stage import Server, cpu_s, running, stage
from tests.bench.workloads import Figures, body, create, many, new_session, percentile, read, text_of
from tests.support.replica import free_port, make_config

POLL_S = 0.25
PATIENCE_S = 60.0
"""A job that has not ended by then never will."""


@asynccontextmanager
async def litellm(command: str, upstream: str) -> AsyncIterator[Server]:
    """A LiteLLM proxy with a Redis, one worker, ready."""
    port, store = free_port(), free_port()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-litellm-")))
        options = ("--port", str(store), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
        server = await asyncio.create_subprocess_exec(
            str(next(_candidates())), *options, stdout=asyncio.subprocess.DEVNULL
        )
        stack.callback(server.kill)
        settings = make_config(upstream)
        del settings["pollux"]
        settings["litellm_settings"]["cache_params"] = {"type": "redis", "host": "127.0.0.1", "port": store}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        ready = f"http://127.0.0.1:{port}/health/liveliness"
        words = (command, "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port))
        pid, took_s = await stack.enter_async_context(running(*words, log=folder / "log", ready=ready))
        client = stack.enter_context(redis.Redis(port=store))
        yield Server(f"http://127.0.0.1:{port}/v1", (pid,), client, took_s)


async def proxied(http: aiohttp.ClientSession, server: Server) -> Figures:
    count, events = 300, 500

    async def post(_: int) -> None:
        await read(http, "POST", f"{server.url}/responses", body("bytes=1000"))

    async def stream(_: int) -> None:
        await read(http, "POST", f"{server.url}/responses", body(f"events={events}", stream=True))

    await many(50, 16, post)
    before = server.cpu_s()
    await many(count, 16, post)
    posts, before = server.cpu_s() - before, server.cpu_s()
    await many(4, 2, stream)
    streams = server.cpu_s() - before
    return {"proxied POST, µs": posts / count * 1e6, "proxied stream, µs per event": streams / 4 / events * 1e6}


async def cached(http: aiohttp.ClientSession, server: Server, jobs: int, events: int) -> Figures:
    submits: list[float] = []

    async def job(number: int) -> tuple[str, int]:
        await asyncio.sleep(number / 500)
        response_id, took = await create(http, server, f"events={events} rate=50")
        submits.append(took * 1e3)
        until = time.monotonic() + events / 50 + PATIENCE_S
        response: dict[str, Any] = {}
        while time.monotonic() < until:
            response = orjson.loads(await read(http, "GET", f"{server.url}/responses/{response_id}"))
            if response["status"] not in ("queued", "in_progress"):
                return response["status"], len(text_of(response)) if response["output"] else 0
            await asyncio.sleep(POLL_S)
        return "never ended", 0

    before, sent = server.cpu_s(), server.store_bytes()
    outcomes = await asyncio.gather(*map(job, range(jobs)))
    spent = server.cpu_s() - before
    reference = max(length for _, length in outcomes)
    whole = sum(status == "completed" and length == reference for status, length in outcomes)
    return {
        f"{jobs} jobs: whole": whole / jobs,
        f"{jobs} jobs: never ended": sum(status == "never ended" for status, _ in outcomes),
        f"{jobs} jobs: completed, but not whole": sum(
            status == "completed" and length < reference for status, length in outcomes
        ),
        f"{jobs} jobs: µs per event": spent / jobs / events * 1e6,
        f"{jobs} jobs: submit p50, ms": percentile(submits, 0.5),
        f"{jobs} jobs: to the store, bytes per event": (server.store_bytes() - sent) / jobs / events,
    }


async def polls(http: aiohttp.ClientSession, server: Server) -> Figures:
    response_id, _ = await create(http, server, "events=100 rate=50")
    await asyncio.sleep(6)

    async def poll(_: int) -> None:
        await read(http, "GET", f"{server.url}/responses/{response_id}")

    before = server.cpu_s()
    await many(300, 16, poll)
    return {"polls/s per core, finished": 300 / (server.cpu_s() - before)}


async def compare(command: str) -> Figures:
    async with stage() as on, litellm(command, on.upstream) as server, new_session() as http:
        (pid,) = server.pids
        await asyncio.sleep(3)
        figures: Figures = {"start to ready, s": server.ready_s, "idle CPU in 3 s, s": -cpu_s(pid)}
        await asyncio.sleep(3)
        figures["idle CPU in 3 s, s"] += cpu_s(pid)
        figures |= await proxied(http, server)
        figures |= await polls(http, server)
        figures |= await cached(http, server, 50, 200)
        figures |= await cached(http, server, 200, 200)
        return figures


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(compare(sys.argv[1]))
    print(table({name: [value] for name, value in figures.items()}, 1, {}))


if __name__ == "__main__":
    main()
