"""The soak: a steady mixed load on three replicas, and nothing may grow that has no reason to.

    python -m tests.soak [--minutes 10] [--replicas 3] [--seed N] [--rate 8] [--store embedded|redis-server] [--leak]

Prints what memory, descriptors, tasks, the store and waits did from the end of the warm-up to the end of the load, and
what was still there after it. Exits with 1 and a list if anything grew, drifted, stayed or surprised a client; with
`--leak`, if it has not found what the replicas were made to leak; with 2 if the machine was too busy to tell.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.soak.drained import Base, left_after
from tests.soak.leaks import LEAKS, leaking
from tests.soak.load import Load, subscribers
from tests.soak.report import Report
from tests.soak.samples import Samples, kinds_in
from tests.soak.stage import FEED_S, running_stage

SAMPLES = 120
"""About so many are taken in a run."""
WARM_AFTER = 0.2
"""This share of the time is for caches to fill, but no less than the store takes to become steady."""
STEADY_S = FEED_S + 10


@dataclass(frozen=True)
class Options:
    seed: int
    minutes: float = 10.0
    replicas: int = 3
    rate: float = 8.0
    store: str = "embedded"
    leak: bool = False
    warm_up_s: float | None = None

    @property
    def warm_s(self) -> float:
        return max(STEADY_S, WARM_AFTER * self.minutes * 60) if self.warm_up_s is None else self.warm_up_s


async def run_soak(options: Options, folder: Path) -> Report:
    """One run. Leaves nothing behind but logs in the folder."""
    samples = Samples()
    before = leaking(LEAKS) if options.leak else ""
    async with running_stage(options.replicas, options.store, folder, before=before) as stage:
        base = await Base.of(stage)
        load = Load(stage, options.seed, options.rate)
        began = time.monotonic()
        async with subscribers(stage):
            running = asyncio.create_task(load.run(options.minutes * 60), name="load")
            while not running.done():
                await samples.take(stage.replicas, stage.store, load.under_way)
                await asyncio.wait([running], timeout=options.minutes * 60 / SAMPLES)
                print(".", end="", file=sys.stderr, flush=True)
            running.result()
            kinds = await asyncio.to_thread(kinds_in, stage.store)
        print(file=sys.stderr)
        # The last visits run out after that: no steady load any more.
        ended = began + options.minutes * 60
        report = Report(began + options.warm_s, ended, samples, load.notes, kinds=kinds)
        if not options.leak:
            report.left = [left async for left in left_after(stage, base)]
    report.left += complaints_in(folder)
    return report


def complaints_in(folder: Path) -> list[str]:
    """Defects that the replicas themselves have logged."""
    lines = [line for file in sorted(folder.glob("replica-*.log")) for line in file.read_text().splitlines()]
    return [
        f"logged: {line[:500]}" for line in lines if "Traceback" in line or '"level":"ERROR"' in line.replace(" ", "")
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description="A steady load, under which nothing may grow.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="draws the same visits again (default: a new one)")
    parser.add_argument("--rate", type=float, default=8.0, help="visits a second, of some five requests each")
    parser.add_argument("--store", default="embedded", help="embedded, or a server to start, as redis-server")
    parser.add_argument("--leak", action="store_true", help="let each replica leak, and see whether that is found")
    parser.add_argument("--warm-up", type=float, default=None, help="seconds that don't count (default: a fifth)")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    options = Options(seed, given.minutes, given.replicas, given.rate, given.store, given.leak, given.warm_up)
    if options.warm_s >= options.minutes * 60:
        parser.error(f"it takes {options.warm_s:.0f} s until all is warm: give it more minutes")
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
    print(f"seed {seed}: {options.replicas} replicas for {options.minutes:g} minutes; logs: {folder}", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run_soak(options, folder))
    print(report.table())
    if options.leak:
        shutil.rmtree(folder)
        return _judge_itself(report, options.replicas)
    failures = list(report.failures())
    for failure in failures:
        print(f"FAILURE: {failure}")
    if failures:
        return 1
    if why := report.unsteady():
        print(f"INCONCLUSIVE: {why}; all has drained, but whether anything grew can't be told on so busy a machine")
        return 2
    shutil.rmtree(folder)
    print("nothing grew, nothing drifted, and all drained")
    return 0


def _judge_itself(report: Report, replicas: int) -> int:
    """Whether all was found that leaked."""
    grew = {name for name, growth in report.growths().items() if growth.grows}
    missed = {(f"replica {number}", what) for number in range(1, replicas + 1) for what in LEAKS} - grew
    for whose, what in sorted(missed):
        print(f"FAILURE: {what} of {whose} leaked, and nobody saw it")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
