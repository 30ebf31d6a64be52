"""The chaos run: mixed jobs and patient clients, while replicas and the store are killed, paused and restarted.

    python -m tests.faults.chaos [--jobs 500] [--seed N] [--replicas 3] [--store embedded|redis-server] [--span S]
                                 [--cluster [--shards 16]] [--rolling]

At the end an auditor proves from the outside that no promise was broken. It exits 0 if so, else 1 with a list of what
was. The same seed draws the same jobs and the same schedule of misfortunes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from tests.faults.chaos_audit import Auditor
from tests.faults.chaos_clients import Client
from tests.faults.chaos_faults import Misfortune, draw_rolling, draw_schedule, running_fleet, until_well
from tests.faults.chaos_feed import running_subscribers
from tests.faults.chaos_jobs import CHAT, MESSAGES, OWNERS, SURVIVABLE, Job, draw_jobs
from tests.faults.chaos_store import running_store
from tests.faults.chaos_webhooks import running_moody_receiver
from tests.support.replica import free_port, make_config
from tests.support.waiting import wait_until

LONGEST_LINE = 900
"""Of a violation: a whole response may be in it."""


@dataclass(frozen=True)
class Options:
    """What makes one run."""

    seed: int
    jobs: int = 500
    replicas: int = 3
    store: str = "embedded"
    span_s: float = 0.0
    """For how long clients come and misfortunes happen; 0: as the number of jobs suggests."""

    shards: int = 1
    rolling: bool = False
    """Nothing but a deploy, in which each replica has time enough for its runs."""

    @property
    def lasts_s(self) -> float:
        return self.span_s or max(8.0, self.jobs / 8)


@dataclass
class Report:
    """What came of it."""

    options: Options
    jobs: list[Job] = field(default_factory=list)
    outcomes: dict[int, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    subscribers: list[str] = field(default_factory=list)
    """What each one was told, in numbers."""
    webhooks: str = ""
    violations: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def table(self) -> str:
        """For people."""
        columns = ("completed", "incomplete", "failed", "worker_lost", "cancelled", "deleted", "lost", "unanswered")
        lines = [f"{'shape':<20}" + "".join(f"{name:>12}" for name in columns)]
        for shape in sorted({job.shape.name for job in self.jobs}):
            numbers = [job.number for job in self.jobs if job.shape.name == shape]
            counts = Counter(self.outcomes.get(number, "unanswered") for number in numbers)
            lines.append(f"{shape:<20}" + "".join(f"{counts[name] or '·':>12}" for name in columns))
        longest = max(self.jobs, key=lambda job: job.longest_wait_s)
        retries = sum(job.retries for job in self.jobs)
        lines.append(f"faults: {', '.join(f'{count} x {kind}' for kind, count in sorted(self.faults.items()))}")
        lines.append(f"subscribers: {', '.join(self.subscribers)}")
        lines.append(f"webhooks: {self.webhooks}")
        lines.append(f"{retries} requests tried again; longest wait {longest.longest_wait_s:.1f} s: {longest}")
        lines.append(f"seed {self.options.seed}: {len(self.violations)} violations in {self.took_s:.0f} s")
        return "\n".join(lines)


async def run_chaos(options: Options, folder: Path, say: Callable[[str], None] = print) -> Report:
    """One run. Leaves nothing behind but logs in the folder."""
    chance = random.Random(options.seed)
    # In one shard two owners are enough; more of them lie in many shards.
    jobs = draw_jobs(chance, options.jobs, options.lasts_s, OWNERS[: 2 * options.shards])
    report = Report(options, jobs)
    began = time.monotonic()
    async with (
        running_simulator_process(folder) as simulator,
        running_moody_receiver(options.seed) as receiver,
        running_store(options.store, folder / "redis", options.shards, options.seed) as store,
        # Logged as JSON: what happened to one response can be found by its id.
        running_fleet(options.replicas, config_for(simulator, options, **receiver.config), store.url, folder) as fleet,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        running_subscribers(fleet.urls) as subscribers,
    ):
        await asyncio.to_thread(store.settle)
        draw = draw_rolling if options.rolling else partial(draw_schedule, chance, store.kinds)
        schedule = draw(options.replicas, options.lasts_s)
        say(f"seed {options.seed}: {len(jobs)} jobs, {len(schedule)} faults in {options.lasts_s:.0f} s; logs: {folder}")
        # One is always left alone; a deploy takes them in turns.
        misfortune = Misfortune(fleet, store, say, 1 if options.rolling else max(1, options.replicas - 1))
        clients = [Client(job, http, fleet.urls, store.record) for job in jobs]
        async with asyncio.TaskGroup() as group:
            group.create_task(misfortune.run(schedule))
            for job, client in zip(jobs, clients, strict=True):
                group.create_task(_come(job, client))
        await until_well(fleet, store)
        fleet.check()
        with store.client() as admin:
            auditor = Auditor(http, fleet.urls()[0], simulator, admin, store.record)
            await auditor.audit(jobs, subscribers, receiver)
        report.subscribers = [f"{len(one.events)} events in {len(one.visits)} streams" for one in subscribers.values()]
        report.webhooks = f"{len(receiver.taken)} taken, {len(receiver.receiver.received)} tries"
        report.outcomes, report.faults = auditor.outcomes, misfortune.counts
    report.violations = auditor.violations + fleet.violations + _complaints(folder)
    diaries = [f"{job} {job.longest_wait_s:.1f} s {' '.join(job.ids)}\n  " + "\n  ".join(job.diary) for job in jobs]
    (folder / "clients.log").write_text("\n".join(diaries))
    report.took_s = time.monotonic() - began
    return report


async def _come(job: Job, client: Client) -> None:
    await asyncio.sleep(job.at_s)
    await client.run()


def config_for(simulator: str, options: Options, **pollux: Any) -> dict[str, Any]:
    drain_s = 12 if options.rolling else 2
    config = make_config(
        simulator,
        lease_s=2,
        drain_s=drain_s,
        max_attempts=20,
        log_format="json",
        shards=options.shards,
        keys=[{"name": name, "key": key} for name, key in OWNERS],
        # Where there are replicas, half of all seeds wait for them.
        store_sync="replica" if options.store == "cluster" and options.seed % 2 else "none",
        **pollux,
    )
    usual = config["model_list"][0]
    config["model_list"].append({**usual, "model_name": SURVIVABLE, "model_info": {"upstream_background": True}})
    for name, provider in ((CHAT, "mistral"), (MESSAGES, "anthropic")):
        params = {**usual["litellm_params"], "model": f"{provider}/{name}"}
        config["model_list"].append({"model_name": name, "litellm_params": params})
        config["litellm_settings"]["responses"]["background_mode"]["polling_via_cache"].append(provider)
    return config


def _complaints(folder: Path) -> list[str]:
    """Defects that the replicas themselves have logged."""
    lines = [line for file in sorted(folder.glob("replica-*.log")) for line in file.read_text().splitlines()]
    return [f"logged: {line}" for line in lines if "Traceback" in line or '"level":"ERROR"' in line.replace(" ", "")]


@asynccontextmanager
async def running_simulator_process(folder: Path) -> AsyncIterator[str]:
    """A provider that survives everything: a process of its own."""
    port = free_port()
    with (folder / "simulator.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", "simulate", "--port", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        await wait_until(lambda: _listens(port), timeout_s=60, what="the simulator listens")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description="Break everything, and prove that nothing was lost.")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="replays a run (default: a new one)")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--store", default="embedded", help="embedded, or a server to start, as redis-server")
    parser.add_argument("--cluster", action="store_true", help="a Cluster of three primaries, each with a replica")
    parser.add_argument("--shards", type=int, default=None, help="hash slots used (default: 1, on a Cluster 16)")
    parser.add_argument("--span", type=float, default=0.0, help="seconds of trouble (default: by the number of jobs)")
    parser.add_argument("--rolling", action="store_true", help="nothing but a deploy, one replica after the other")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    store = "cluster" if given.cluster else given.store
    shards = given.shards or (16 if given.cluster else 1)
    options = Options(seed, given.jobs, given.replicas, store, given.span, shards, given.rolling)
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run_chaos(options, folder))
    print(report.table())
    for violation in report.violations:
        print(f"VIOLATION: {violation[:LONGEST_LINE]}")
    if report.violations:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
