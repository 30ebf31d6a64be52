"""The only table of URLs."""

from __future__ import annotations

from aiohttp import web

from server.api.control import cancel_response, delete_response
from server.api.create import create_response
from server.api.health import livez, readyz
from server.api.lists import (
    list_input_items,
    list_models,
    list_responses,
    retrieve_model,
)
from server.api.middleware import Handler, open_to_all
from server.api.retrieve import retrieve_response
from server.errors import NotFound, shown


async def not_served(_request: web.Request) -> web.StreamResponse:
    """Operations of the standard that Pollux does not have yet."""
    raise web.HTTPNotFound


PREFIXES = ("/v1", "", "/openai/v1")

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/responses", create_response),
    ("GET", "/responses", list_responses),
    ("GET", "/responses/{id:[^/]+}", retrieve_response),
    ("POST", "/responses/{id:[^/]+}/cancel", cancel_response),
    ("DELETE", "/responses/{id:[^/]+}", delete_response),
    ("GET", "/responses/{id:[^/]+}/input_items", list_input_items),
    # Else they would pass for ids that can't be POSTed to.
    ("POST", "/responses/compact", not_served),
    ("POST", "/responses/input_tokens", not_served),
    ("GET", "/models", list_models),
    ("GET", r"/models/{id:[\s\S]+}", retrieve_model),
)

OPERATIONS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/livez", livez),
    ("GET", "/readyz", readyz),
    ("GET", "/health/liveliness", livez),
    ("GET", "/health/liveness", livez),
    ("GET", "/health/readiness", readyz),
)


@open_to_all
async def not_here(request: web.Request) -> web.StreamResponse:
    """Everything else, where only jobs are run."""
    raise NotFound(f"There is no {request.method} {shown(request.path)} here: this process only runs jobs.")


def add_routes(app: web.Application) -> None:
    for prefix in PREFIXES:
        for method, path, handler in ROUTES:
            # HEAD would run a whole GET, waits included.
            app.router.add_route(method, prefix + path, handler)
    _add_operations(app)


def add_worker_routes(app: web.Application) -> None:
    """Only what tells how the process is."""
    _add_operations(app)
    app.router.add_route("*", r"/{path:[\s\S]*}", not_here)


def _add_operations(app: web.Application) -> None:
    for method, path, handler in OPERATIONS:
        app.router.add_route(method, path, handler)
