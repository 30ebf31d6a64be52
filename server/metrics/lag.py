"""How late the event loop is: whatever holds it up delays every client, every run and every renewal of a lease."""

from __future__ import annotations

import asyncio
from time import perf_counter

from server.metrics.port import Metrics

LOOK_EVERY_S = 0.1


async def keep_watching(metrics: Metrics) -> None:
    """Tell how late a timer fires, again and again until cancelled."""
    while True:
        due = perf_counter() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        metrics.loop_lagged(max(0.0, perf_counter() - due))
