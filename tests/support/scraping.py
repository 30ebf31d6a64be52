"""A scraper of `/metrics`, as Prometheus is one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.replica import MASTER_KEY, Replica


@dataclass(frozen=True)
class Scrape:
    """What one scrape brought."""

    text: str

    @property
    def families(self) -> list[Metric]:
        return list(text_string_to_metric_families(self.text))

    def samples(self, name: str, **labels: str) -> Iterator[Sample]:
        for family in self.families:
            for sample in family.samples:
                if sample.name == f"pollux_{name}" and labels.items() <= sample.labels.items():
                    yield sample

    def value(self, name: str, **labels: str) -> float:
        """The sum of all series of this name, without `pollux_`, that have these labels; 0 where there is none."""
        return sum(sample.value for sample in self.samples(name, **labels))


async def scraped(replica: Replica) -> Scrape:
    """A scrape; of several processes, of one that does not just begin or end."""
    return Scrape(await scrape_text(replica))


async def somebody_waits(replica: Replica) -> bool:
    """Whether a GET of a cached response is held open until there is something new."""
    return (await scraped(replica)).value("waiters", kind="cached") > 0


async def scrape_text(replica: Replica) -> str:
    """The same as it came: to take it apart costs more than all else."""
    for _ in range(100):
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {MASTER_KEY}"}) as http:
            try:
                answer = await http.get(f"{replica.url}/metrics")
                text = await answer.text()
            except aiohttp.ClientConnectionError:
                continue
        if answer.status == 200:
            return text
        assert answer.status == 503, text
        await asyncio.sleep(0.02)
    raise AssertionError("none answers")
