"""Liveness and readiness, for orchestrators and load balancers. Neither needs an API key."""

from __future__ import annotations

from aiohttp import web

from server.api.context import context_of
from server.api.middleware import open_to_all
from server.errors import Unavailable


@open_to_all
async def livez(_request: web.Request) -> web.Response:
    """The process answers. The store is not checked, because restarting Pollux does not repair Redis."""
    return web.json_response({"status": "ok"})


@open_to_all
async def readyz(request: web.Request) -> web.Response:
    """This process takes new work: it has not been told to end, and its store answers.

    Raises:
        Unavailable, StoreUnavailable

    """
    context = context_of(request)
    if context.phase.leaving or context.phase.draining:
        raise Unavailable("This instance is shutting down.")
    await context.store.ping()
    return web.json_response({"status": "ok"})
