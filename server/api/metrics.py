"""GET /metrics, and what is looked at for it every second: all that rises and falls."""

from __future__ import annotations

import asyncio
from functools import partial

from aiohttp import web

from server.api.context import Context, Live, context_of
from server.api.health import check_ready
from server.errors import Unavailable
from server.metrics import Levels
from storage import StoreError

MEASURE_EVERY_S = 1.0
READY_WITHIN_S = 2.0
"""How long the store is waited for, so that a scrape is answered while it is away."""


async def show_metrics(request: web.Request) -> web.Response:
    """The metrics of all processes of this replica, in Prometheus's format."""
    context = context_of(request)
    counts, ready = await asyncio.gather(context.job_counts.now(), _is_ready(context))
    measure(context)
    show = partial(context.metrics.exposition, counts, request.headers.get("Accept", ""), ready=ready)
    # In a thread, because it takes some ten milliseconds.
    body, content_type = await asyncio.to_thread(show)
    return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


async def _is_ready(context: Context) -> bool:
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await check_ready(context)
    except (Unavailable, StoreError, TimeoutError):
        return False
    return True


async def keep_measuring(live: Live) -> None:
    """Measure until cancelled, so that every process can show what the others found last."""
    while True:
        measure(live.now)
        await asyncio.sleep(MEASURE_EVERY_S)


def measure(context: Context) -> None:
    context.metrics.measured(levels_of(context))


def levels_of(context: Context) -> Levels:
    """What rises and falls in this process."""
    health, deployments = context.upstream.health, context.deployments.all
    return Levels(
        runs=context.worker.active,
        store_exchanges=context.store.exchanges,
        waiters={"cached": context.hub.waiters, "native": context.pollers.waiters},
        streams=context.streams,
        calls={deployment.id: health.in_flight(deployment) for deployment in deployments},
        cooling={deployment.id: not health.is_healthy(deployment) for deployment in deployments},
        tasks=len(asyncio.all_tasks()),  # 2 ms for 10,000 of them
    )
