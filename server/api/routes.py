"""The only table of URLs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aiohttp import web

from server.api.control import cancel_response, delete_response
from server.api.create import create_response
from server.api.expect import expect
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


PREFIXES = ("/v1", "", "/openai/v1", "/openai", "/openai/deployments/{model:[^/]+}")
"""OpenAI's; none, for drop-in use; and those of Azure's SDK, whose `api-version` is of no meaning here."""

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
    ("GET", r"/models/{id:[\s\S]*[^/]}", retrieve_model),
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
    add_table(app, [(method, prefix + path, handler) for prefix in PREFIXES for method, path, handler in ROUTES])
    add_table(app, OPERATIONS)


def add_worker_routes(app: web.Application) -> None:
    """Only what tells how the process is."""
    add_table(app, OPERATIONS)
    app.router.add_route("*", r"/{path:[\s\S]*}", not_here, expect_handler=expect)


def add_table(app: web.Application, table: Iterable[tuple[str, str, Handler]]) -> None:
    """Serve a table of routes, each with and without a slash at its end, and OPTIONS and HEAD beside GET."""
    methods: dict[str, dict[str, Handler]] = {}
    for method, path, handler in table:
        served = methods.setdefault(path, {})
        served[method] = handler
        if method == "GET":
            served["HEAD"] = handler
    for served in methods.values():
        served["OPTIONS"] = _options([*served, "OPTIONS"])
    # First those without: patterns are tried in order, and hardly anybody sends the other ones.
    for slash in ("", "/"):
        for path, served in methods.items():
            for method, handler in served.items():
                app.router.add_route(method, path + slash, handler, expect_handler=expect)


def _options(allowed: Sequence[str]) -> Handler:
    @open_to_all
    async def options(_request: web.Request) -> web.Response:
        """What may be done here. For a browser's preflight the headers of `cors.py` say the rest."""
        return web.Response(status=204, headers={"Allow": ", ".join(allowed)})

    return options
