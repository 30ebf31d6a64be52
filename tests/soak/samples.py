"""What may grow, looked at from outside: the processes of the replicas by the process table (Linux), and the store."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tests.bench.stage import cpu_s
from tests.soak.judging import Series
from tests.support.replica import Replica
from tests.support.scraping import scrape_text

MEMORY, DESCRIPTORS, TASKS, THREADS, METRICS = "memory, MB", "descriptors", "tasks", "threads", "series in /metrics"
CPU = "CPU of an answer, ms"
LOAD, UNDER_WAY = "the load", "visits under way"
CPU_S, ANSWERS = "CPU, s", "answers"
KEYS, ENTRIES, STORED, CONNECTED, CHANNELS = "keys", "entries of keys", "stored, MB", "connections", "channels"
"""`entries of keys`: how many members all sets, streams, lists and hashes of the store have that serve more than one
response."""
OF_MANY = {
    **dict.fromkeys(("queue", "rotation", "leases", "upstream_cancels", "endpoints_due", "due"), "zcard"),
    **dict.fromkeys(("owned", "ended", "usage_owners", "requests"), "zcard"),
    **dict.fromkeys(("endpoints", "usage", "health"), "hlen"),
    "feed": "xlen",
    "delivered": "llen",
}
"""The kinds of keys that serve more than one response, and the command that counts their members."""


@dataclass
class Samples:
    """All series so far, by what they are of and what they tell: `replica 1`, `memory, MB`."""

    series: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    _spent: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Of each replica, at its last sample: seconds of CPU, and answers."""

    def note(self, whose: str, found: Mapping[str, float], at: float) -> None:
        for what, value in found.items():
            self.series[whose, what].append((at, value))

    def since(self, began: float) -> dict[tuple[str, str], Series]:
        return {name: [(at, value) for at, value in series if at >= began] for name, series in self.series.items()}

    async def take(self, replicas: Sequence[Replica], store: redis.Redis, under_way: int) -> None:
        """Take one sample of each; so many visits are under way."""
        at = time.monotonic()
        self.note(LOAD, {UNDER_WAY: under_way}, at)
        for number, replica in enumerate(replicas, 1):
            found = await of_replica(replica)
            spent, answers = found.pop(CPU_S), found.pop(ANSWERS)
            before, answered_before = self._spent.get(number, (0.0, 0.0))
            self._spent[number] = spent, answers
            found[CPU] = (spent - before) / max(1.0, answers - answered_before) * 1e3
            self.note(f"replica {number}", found, at)
        self.note("the store", await asyncio.to_thread(of_store, store), at)


async def of_replica(replica: Replica) -> dict[str, float]:
    assert replica.process is not None
    pid = replica.process.pid
    lines = [line for line in (await scrape_text(replica)).splitlines() if not line.startswith("#")]
    (tasks,) = [line.split()[1] for line in lines if line.startswith("pollux_event_loop_tasks ")]
    return {
        MEMORY: own_memory_bytes(pid) / 2**20,
        DESCRIPTORS: float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())),
        TASKS: float(tasks),
        THREADS: float(sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())),
        METRICS: float(len(lines)),
        CPU_S: cpu_s(pid),
        ANSWERS: sum(float(line.split()[1]) for line in lines if line.startswith("pollux_http_requests_total{")),
    }


def own_memory_bytes(pid: int) -> int:
    """What would be free if the process ended: what it shares with others does not count."""
    kilobytes = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_"):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024


def of_store(store: redis.Redis) -> dict[str, float]:
    memory: Any = store.info("memory")
    clients: Any = store.info("clients")
    channels: Any = store.pubsub_channels()
    names = [name.decode() for name in store.scan_iter(count=1000)]
    return {
        KEYS: float(len(names)),
        ENTRIES: float(sum(members_of(store, names).values())),
        STORED: memory["used_memory"] / 2**20,
        CONNECTED: float(clients["connected_clients"]),
        CHANNELS: float(len(channels)),
    }


def kind_of(key: str) -> str:
    """`pollux:{0}:record:<id>` is a `record`."""
    return key.partition("}:")[2].partition(":")[0]


def kinds_in(store: redis.Redis) -> Counter[str]:
    """How many keys there are of each kind."""
    return Counter(kind_of(name.decode()) for name in store.scan_iter(count=1000))


def members_of(store: redis.Redis, names: Sequence[str]) -> Counter[str]:
    """How many members the keys that serve many responses have, by their kind."""
    counted = [(name, OF_MANY[kind]) for name in names if (kind := kind_of(name)) in OF_MANY]
    with store.pipeline(transaction=False) as pipe:
        for name, command in counted:
            pipe.execute_command(command, name)  # type: ignore[no-untyped-call]
        answers = pipe.execute()
    found: Counter[str] = Counter()
    for (name, _), members in zip(counted, answers, strict=True):
        found[kind_of(name)] += members
    return found
