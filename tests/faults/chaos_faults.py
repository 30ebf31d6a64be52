"""What is done to Pollux while it works: a fleet of replicas, their store, and the schedule of their misfortunes."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.chaos_store import AnyStore
from tests.support.replica import Replica, replica_process
from tests.support.waiting import wait_until

ENDS_WITHIN_S = 30.0
"""From SIGTERM to the end of the process: `drain_s`, and a store that may be away."""
KINDS = {
    "kill -9": 6,
    "SIGTERM": 4,
    "pause": 5,
    "kill -9 all": 1,
}
"""What happens to replicas, and how often compared to the rest."""


@dataclass(frozen=True)
class Fault:
    """One misfortune of the schedule."""

    at_s: float
    kind: str
    target: int
    """Which replica."""
    lasts_s: float
    """How long it is paused, or stays down before it is started again."""

    def __str__(self) -> str:
        whom = "" if "store" in self.kind or "all" in self.kind else f" replica {self.target}"
        return f"{self.at_s:5.1f} s  {self.kind}{whom} for {self.lasts_s:.1f} s"


def draw_schedule(chance: random.Random, of_store: Mapping[str, int], replicas: int, span_s: float) -> list[Fault]:
    """The same schedule for the same seed. `of_store`: what happens to this store, and how often."""
    kinds = {**KINDS, **of_store}
    schedule, at_s = [], chance.uniform(1.0, 2.0)
    while at_s < span_s:
        (kind,) = chance.choices(list(kinds), list(kinds.values()))
        longest_s = {"pause": 4.0, "store pause": 3.0, "store node pause": 4.0, "store slot moves": 2.0}.get(kind, 1.0)
        lasts_s = chance.uniform(1.0 if "pause" in kind else 0.0, longest_s)
        schedule.append(Fault(at_s, kind, chance.randrange(replicas), lasts_s))
        at_s += chance.uniform(0.4, 2.0)
    return schedule


def draw_rolling(replicas: int, span_s: float) -> list[Fault]:
    """A deploy: each replica in its turn is told to end, and started again."""
    return [Fault(1 + n * span_s / (replicas + 1), "SIGTERM", n, 0.2) for n in range(replicas)]


@dataclass
class Place:
    """Where a replica runs, or the next one will."""

    replica: Replica | None = None
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class Fleet:
    """The replicas, as their operator and their load balancer see them."""

    def __init__(self, count: int, start: Callable[[], AbstractAsyncContextManager[Replica]]) -> None:
        self.places = [Place() for _ in range(count)]
        self._start = start
        self.violations: list[str] = []

    def urls(self) -> list[str]:
        """Where a client may try: a load balancer notices late, so the dying and the paused are among them."""
        return [place.replica.url for place in self.places if place.replica is not None]

    async def start(self, place: Place) -> None:
        place.replica = await place.stack.enter_async_context(self._start())

    async def end(self, place: Place) -> None:
        """SIGTERM, and wait until it is gone."""
        replica = place.replica
        if replica is None or replica.process is None:
            return
        replica.signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(replica.process.wait(), ENDS_WITHIN_S)
        except TimeoutError:
            self.violations.append(f"{replica.url} did not end within {ENDS_WITHIN_S:g} s of SIGTERM")
            await replica.kill()
        else:
            if code != 0:
                self.violations.append(f"{replica.url} ended with {code} after SIGTERM")
        place.replica = None

    async def kill(self, place: Place) -> None:
        if place.replica is not None:
            await place.replica.kill()
            place.replica = None

    def check(self) -> None:
        """Nobody ends without being told to."""
        for number, place in enumerate(self.places):
            if place.replica is not None and place.replica.process and place.replica.process.returncode is not None:
                self.violations.append(f"replica {number} ended by itself: {place.replica.process.returncode}")


@asynccontextmanager
async def running_fleet(count: int, config: dict[str, Any], store_url: str, folder: Path) -> AsyncIterator[Fleet]:
    """All of them, ready; ended in order, so that the last one shuts down an embedded store."""
    fleet = Fleet(count, lambda: replica_process(config, store_url, folder))
    try:
        await asyncio.gather(*(fleet.start(place) for place in fleet.places))
        yield fleet
        await asyncio.gather(*(fleet.end(place) for place in fleet.places))
    finally:
        for place in fleet.places:
            await place.stack.aclose()


class Misfortune:
    """Carries out a schedule."""

    def __init__(self, fleet: Fleet, store: AnyStore, say: Callable[[str], None], at_once: int) -> None:
        self._fleet = fleet
        self._store = store
        self._say = say
        # So many replicas, but for `kill -9 all`.
        self._some = asyncio.Semaphore(at_once)
        self._store_busy = asyncio.Lock()
        self.counts: Counter[str] = Counter()

    async def run(self, schedule: list[Fault]) -> None:
        """Return when the last one is over, and all is up again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                await asyncio.sleep(began + fault.at_s - loop.time())
                group.create_task(self._befall(fault))

    async def _befall(self, fault: Fault) -> None:
        if "store" in fault.kind:
            async with self._store_busy:
                self._say(str(fault))
                await self._store.befall(fault.kind, fault.lasts_s)
        elif fault.kind == "kill -9 all":
            # In one order, so that two of them can't wait for each other.
            async with AsyncExitStack() as stack:
                for place in self._fleet.places:
                    await stack.enter_async_context(place.busy)
                self._say(str(fault))
                await asyncio.gather(*(self._fleet.kill(place) for place in self._fleet.places))
                await asyncio.sleep(fault.lasts_s)
                await asyncio.gather(*(self._fleet.start(place) for place in self._fleet.places))
        else:
            place = self._fleet.places[fault.target]
            async with self._some, place.busy:
                self._say(str(fault))
                await self._on_replica(place, fault)
        self.counts[fault.kind] += 1

    async def _on_replica(self, place: Place, fault: Fault) -> None:
        self._fleet.check()
        if fault.kind == "pause":
            assert place.replica is not None
            place.replica.signal(signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            place.replica.signal(signal.SIGCONT)
            return
        await (self._fleet.kill(place) if fault.kind == "kill -9" else self._fleet.end(place))
        await asyncio.sleep(fault.lasts_s)
        await self._fleet.start(place)


async def until_well(fleet: Fleet, store: AnyStore) -> None:
    """All replicas ready, the store answering."""
    await asyncio.to_thread(store.settle)
    for place in fleet.places:
        replica = place.replica
        assert replica is not None
        await wait_until(lambda replica=replica: _ready(replica), timeout_s=30, what=f"{replica.url} is ready")


async def _ready(replica: Replica) -> bool:
    async with replica.http() as http:
        return (await http.get(f"{replica.url}/readyz")).status == 200
