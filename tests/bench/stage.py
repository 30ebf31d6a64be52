"""What is measured, running: a mock upstream, a Pollux on an embedded store of its own, and the minimal proxy.

CPU is that of the process table (Linux), so a load generator that is slower than the server falsifies nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import redis
import yaml

from tests.conftest import plain_url
from tests.support.replica import MASTER_KEY, free_port, make_config

ROOT = Path(__file__).parents[2]
PYTHON = (sys.executable, "-m")
TICKS = os.sysconf("SC_CLK_TCK")
HEADERS = {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"}


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, in and for itself."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Server:
    """A server under load: where it is, and the processes that do its work."""

    url: str
    pids: tuple[int, ...]
    store: redis.Redis | None = None
    ready_s: float = 0.0
    """From its start until it was ready."""

    def cpu_s(self) -> float:
        return sum(self.cpus_s())

    def cpus_s(self) -> list[float]:
        return list(map(cpu_s, self.pids))

    def store_bytes(self) -> int:
        """What has been sent to the store, ever."""
        assert self.store is not None
        about: Any = self.store.info("stats")
        return int(about["total_net_input_bytes"])

    def store_commands(self) -> int:
        assert self.store is not None
        about: Any = self.store.info("commandstats")
        return sum(int(about[f"cmdstat_{name}"]["calls"]) for name in ("evalsha", "eval") if f"cmdstat_{name}" in about)


async def start(*words: str, log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("POLLUX_")},
        )


@asynccontextmanager
async def running(*words: str, log: Path, ready: str) -> AsyncIterator[tuple[int, float]]:
    """A process, once `ready` answers at all: its pid, and how long that took."""
    began = time.monotonic()
    process = await start(*words, log=log)
    try:
        while not await _answers(ready):
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.005)
        yield process.pid, time.monotonic() - began
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status < 500
    except aiohttp.ClientError:
        return False


@dataclass
class Stage:
    """Starts servers, each for one measurement."""

    folder: Path
    upstream: str
    minimal: Server

    @asynccontextmanager
    async def pollux(self, *, workers: int = 1, models: Sequence[str] = (), **config: Any) -> AsyncIterator[Server]:
        """A new Pollux on a new store, empty, with further models, named with LiteLLM's prefixes."""
        port = free_port()
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            store = f"embedded://{folder / 'store'}"
            settings = make_config(self.upstream, store=store, drain_s=0, **config)
            for model in models:
                params = {"model": model, "api_base": self.upstream, "api_key": "sk-upstream-secret"}
                settings["model_list"].append({"model_name": model, "litellm_params": params})
            (folder / "config.yaml").write_text(yaml.safe_dump(settings))
            words = [*PYTHON, "server", "serve", "--config", str(folder / "config.yaml"), "--port", str(port)]
            if workers > 1:
                words += ["--workers", str(workers)]
            ready = f"http://127.0.0.1:{port}/readyz"
            async with running(*words, log=folder / "log", ready=ready) as (pid, took_s):
                while (folder / "log").read_text().count("serving on") < workers:
                    await asyncio.sleep(0.05)
                pids = (pid, *_children(pid)) if workers > 1 else (pid,)
                with redis.Redis.from_url(plain_url(store)) as client:
                    yield Server(f"http://127.0.0.1:{port}/v1", pids, client, took_s)


def _children(pid: int) -> tuple[int, ...]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return tuple(int(child) for child in found if b"-m\x00server" in Path(f"/proc/{child}/cmdline").read_bytes())


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """All that outlives one measurement."""
    async with AsyncExitStack() as stack:
        # Not pytest's, whose name may be too long for a socket.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pollux-bench-")))
        upstream, minimal = free_port(), free_port()
        log = folder / "log"
        process = await start(*PYTHON, "tests.bench.upstream", str(upstream), log=log)
        stack.callback(process.kill)
        base = f"http://127.0.0.1:{upstream}/v1"
        words = (*PYTHON, "tests.bench.minimal", str(minimal), base)
        ready = f"http://127.0.0.1:{minimal}/"
        pid, _ = await stack.enter_async_context(running(*words, log=log, ready=ready))
        yield Stage(folder, base, Server(f"http://127.0.0.1:{minimal}/v1", (pid,)))
