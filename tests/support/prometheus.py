"""A real Prometheus that scrapes a replica, and is asked as Grafana asks it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.support.promql import ALERTS
from tests.support.replica import MASTER_KEY, Replica, free_port
from tests.support.waiting import wait_until

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")

EVERY = "250ms"


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str
    http: aiohttp.ClientSession

    async def ask(self, path: str, **query: str) -> Any:
        async with self.http.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            said = await answer.json()
        assert said["status"] == "success", said
        return said["data"]

    async def value(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        found: list[dict[str, Any]] = (await self.ask("query", query=expr))["result"]
        return found


@asynccontextmanager
async def scraping(replica: Replica, place: Path) -> AsyncIterator[Prometheus]:
    """Scrape a replica once a second, and evaluate our alerts as often. What it logs is in `place`."""
    assert PROMETHEUS is not None
    key = place / "key"
    key.write_text(MASTER_KEY)
    config = {
        "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "pollux",
                "authorization": {"credentials_file": str(key)},
                "static_configs": [{"targets": [replica.url.removeprefix("http://")]}],
            }
        ],
    }
    file = place / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    with (place / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            *(f"--config.file={file}", f"--storage.tsdb.path={place / 'data'}"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--query.lookback-delta=10s"),
            *("--enable-feature=exemplar-storage", "--log.level=warn"),
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as http:
            prometheus = Prometheus(f"http://127.0.0.1:{port}", http)
            await wait_until(lambda: _is_up(prometheus), timeout_s=20)
            yield prometheus
    finally:
        process.terminate()
        await process.wait()


async def _is_up(prometheus: Prometheus) -> bool:
    try:
        return any(series["value"][1] == "1" for series in await prometheus.value('up{job="pollux"}'))
    except (aiohttp.ClientError, AssertionError):
        return False
