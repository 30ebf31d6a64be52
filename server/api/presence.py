"""What each process tells all others of itself: that it is there, what it has to do, and how its deployments do."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress
from typing import Any

from server import __version__
from server.api.context import Context, Live
from server.api.metrics import levels_of
from server.upstream.deployments import Deployment
from storage import StoreError

log = logging.getLogger("pollux.presence")

REPORT_EVERY_S = 5.0
LEAVE_WITHIN_S = 1.0


def process_name() -> str:
    """The name of this process among all on the store: its host's, and its number there."""
    host = "".join(char for char in socket.gethostname() if char.isprintable() and not char.isspace())
    return f"{host}:{os.getpid()}"


async def keep_reporting(live: Live, role: str) -> None:
    """Report until cancelled, and then say goodbye."""
    name, since = process_name(), time.time()
    processes = live.now.store.processes
    try:
        while True:
            # While the store is away, nobody misses it: whoever asks can't be answered either.
            with suppress(StoreError):
                await processes.report(name, _about(live.now, role, since))
            await asyncio.sleep(REPORT_EVERY_S)
    finally:
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await processes.leave(name)


def _about(context: Context, role: str, since: float) -> dict[str, Any]:
    levels = levels_of(context)
    return {
        "version": __version__,
        "role": role,
        "started_at": since,
        "leaving": context.phase.leaving,
        "runs": levels.runs,
        "waiters": sum(levels.waiters.values()),
        "streams": sum(levels.streams.values()),
        "deployments": {made.id: _course(context, made) for made in context.deployments.all},
    }


def _course(context: Context, made: Deployment) -> dict[str, Any]:
    health, course = context.upstream.health, context.upstream.lately.course(made.id)
    return {
        "in_flight": health.in_flight(made),
        "cools_for_s": round(health.cools_for_s(made), 3),
        "calls": course.calls,
        "failed": course.failed,
        "median_s": course.median_s,
        "first_median_s": course.first_median_s,
    }
