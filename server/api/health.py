"""Liveness and readiness, for orchestrators and load balancers. Neither needs an API key."""

from __future__ import annotations

from aiohttp import web

from server.api.context import Context, context_of
from server.errors import Unavailable


async def livez(_request: web.Request) -> web.Response:
    """The process answers. The store is not checked, because restarting Pollux does not repair Redis."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """This process takes new work: it has not been told to end, and its store answers.

    Raises:
        Unavailable, StoreUnavailable

    """
    await check_ready(context_of(request))
    return web.json_response({"status": "ok"})


async def check_ready(context: Context) -> None:
    """Return if this process takes new work.

    Raises:
        Unavailable: it has been told to end
        StoreUnavailable

    """
    if context.phase.leaving or context.phase.draining:
        raise Unavailable("This instance is shutting down.")
    await context.store.ping()
