"""The benchmark: what each piece of work costs, beside its target.

    python -m tests.bench [--runs 3] [--only NAME ...]

Prints one table with medians. Everything runs on this machine, the load too: so costs are CPU of the server's
processes, by the process table (Linux).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import statistics
import sys
from collections.abc import Mapping, Sequence

import uvloop

from tests.bench import dialects, feed, workloads
from tests.bench.stage import stage
from tests.bench.workloads import Figures

WORK = (
    workloads.starting,
    dialects.starting_with_dialects,
    dialects.translated_events,
    workloads.proxied_post,
    workloads.proxied_stream,
    workloads.cached_50,
    workloads.cached_1000,
    workloads.cached_burst,
    workloads.linear,
    workloads.polls,
    workloads.subscribers,
    workloads.waiters,
    feed.short_jobs,
    feed.feed_latency,
    feed.feed_subscribers,
    feed.webhooks,
    workloads.large,
    workloads.two_workers,
)

TARGETS: dict[str, tuple[str, float]] = {
    "start to ready, s": ("≤", 1.0),
    "idle memory, MB": ("≤", 70),
    "translated event, chat: µs more": ("≤", 25),
    "translated event, messages: µs more": ("≤", 25),
    "other dialects: idle, MB more": ("≤", 5),
    "proxied POST / minimal": ("≤", 1.6),
    "proxied stream, µs per event": ("≤", 8),
    "first event later than minimal, ms": ("≤", 1),
    "50 jobs: µs per event": ("≤", 60),
    "50 jobs: submit p50, ms": ("≤", 10),
    "50 jobs: submit p99, ms": ("≤", 30),
    "50 jobs: end to client p50, ms": ("≤", 5),
    "50 jobs: end to client p99, ms": ("≤", 25),
    "50 jobs: whole": ("≥", 1),
    "1000 jobs: whole": ("≥", 1),
    "1000 jobs: late p99, s": ("≤", 1),
    "1000 jobs: µs per event": ("≤", 30),
    "burst: events/s per process": ("≥", 60_000),
    "4 x the events: x the bytes": ("≤", 4.2),
    "50 jobs: to the store, bytes per event": ("≤", 300),
    "burst: to the store, bytes per event": ("≤", 80),
    "polls/s per core, running": ("≥", 2000),
    "polls/s per core, finished": ("≥", 3500),
    "subscribers: µs per event and reader": ("≤", 6),
    "10,000 waiters: KB each": ("≤", 30),
    "10,000 waiters: idle CPU, %": ("≤", 1),
    "10,000 waiters: all awake after, s": ("≤", 1),
    "status event, bytes in the store": ("≤", 200),
    "50 jobs: status to subscriber p50, ms": ("≤", 10),
    "5,000 subscribers: KB each": ("≤", 30),
    "5,000 subscribers: idle CPU, %": ("≤", 1),
    "longest pause of others, ms": ("≤", 50),
    "two workers: x one": ("≥", 1.7),
}


async def measured(runs: int, only: Sequence[str]) -> dict[str, list[float]]:
    """Every figure of every run."""
    figures: dict[str, list[float]] = {}
    async with stage() as on:
        for work in WORK:
            if only and work.__name__ not in only:
                continue
            for _ in range(runs):
                found: Figures = await work(on)
                for name, value in found.items():
                    figures.setdefault(name, []).append(value)
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return figures


def table(figures: dict[str, list[float]], runs: int, targets: Mapping[str, tuple[str, float]] = TARGETS) -> str:
    """For people, and for the README: Markdown."""
    cores = os.cpu_count()
    lines = [
        f"Medians of {runs} runs, {cores} cores, {platform.machine()}, Python {platform.python_version()}:",
        "",
        "| work | figure | least … most | target | met |",
        "|---|---:|---:|---:|---|",
    ]
    for name, values in figures.items():
        middle = statistics.median(values)
        sign, target = targets.get(name, ("", 0.0))
        met = "" if not sign else "yes" if (middle <= target if sign == "≤" else middle >= target) else "**no**"
        spread = f"{shown(min(values))} … {shown(max(values))}"
        lines.append(f"| {name} | {shown(middle)} | {spread} | {f'{sign} {shown(target)}' if sign else ''} | {met} |")
    return "\n".join(lines)


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="What each piece of work costs.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=(), help=", ".join(work.__name__ for work in WORK))
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measured(given.runs, given.only))
    print(table(figures, given.runs))


if __name__ == "__main__":
    main()
