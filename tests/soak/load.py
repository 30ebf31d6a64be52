"""The load of the soak: so many visits a second, drawn by a seed, and subscribers who stay from beginning to end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from tests.soak.acts import ACTS, Act
from tests.soak.customer import Customer, Notes, Surprise
from tests.soak.stage import OWNERS, Stage
from tests.support.replica import MASTER_KEY
from tests.support.subscribers import Patient

LONGEST_VISIT_S = 60.0
MOST_AT_ONCE = 400
"""Visits; on a machine that is too slow for the load the next one waits."""


class Load:
    """Visits, one after the other come and many at once under way."""

    def __init__(self, stage: Stage, seed: int, rate: float) -> None:
        self._stage = stage
        self._chance = random.Random(seed)
        self._rate = rate
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self.notes = Notes()
        self.under_way = 0

    async def run(self, for_s: float) -> None:
        """Return when the last visit is over. What surprised a visitor is in the notes."""
        ends = time.monotonic() + for_s
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=LONGEST_VISIT_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            asyncio.TaskGroup() as visits,
        ):
            visits.create_task(self._watch_the_machine(http, ends))
            while time.monotonic() < ends:
                await self._places.acquire()
                (act,) = self._chance.choices(list(ACTS), list(ACTS.values()))
                visits.create_task(self._visit(act, self._customer(http)))
                await asyncio.sleep(self._chance.expovariate(self._rate))

    def _customer(self, http: aiohttp.ClientSession) -> Customer:
        urls = [replica.url for replica in self._stage.replicas]
        key = f"sk-{self._chance.choice(OWNERS)}"
        chance = random.Random(self._chance.getrandbits(64))
        return Customer(http, urls, key, chance, self.notes, self._stage.receiver.url)

    async def _visit(self, act: Act, customer: Customer) -> None:
        self.under_way += 1
        try:
            async with asyncio.timeout(LONGEST_VISIT_S):
                await act(customer)
            self.notes.acts[act.__name__] += 1
        except (Surprise, aiohttp.ClientError, TimeoutError, KeyError) as error:
            self.notes.complain(f"{act.__name__}: {error!r}")
        finally:
            self.under_way -= 1
            self._places.release()

    async def _watch_the_machine(self, http: aiohttp.ClientSession, ends: float) -> None:
        """Ask something that never changes, so that a machine that has become slow is not taken for a drift."""
        while (began := time.monotonic()) < ends:
            async with http.get(f"{self._stage.simulator}/v1/models") as answer:
                await answer.read()
            self.notes.took(MACHINE, began)
            await asyncio.sleep(0.2)


MACHINE = "the machine itself"
"""A request to the simulator: the other waits are compared with it."""


@asynccontextmanager
async def subscribers(stage: Stage) -> AsyncIterator[list[Patient]]:
    """One of everything at each replica, one of an owner who stays, and one who comes again after every 50 events."""
    async with AsyncExitStack() as stack:
        urls = [replica.url for replica in stage.replicas]
        found = [
            *(Patient([url].copy, MASTER_KEY) for url in urls),
            *(Patient(urls.copy, f"sk-{OWNERS[0]}", hangs_up_after=most) for most in (0, 50)),
        ]
        for one in found:
            await stack.enter_async_context(one)
        yield found
