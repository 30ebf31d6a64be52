"""The table of all URLs that Pollux serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aiohttp import web

from server.api.control import cancel_response, delete_response
from server.api.create import create_response
from server.api.events import stream_events
from server.api.expect import expect
from server.api.health import livez, readyz
from server.api.input import compact_input, count_input_tokens
from server.api.jobs import list_jobs, retrieve_job
from server.api.lists import (
    list_input_items,
    list_models,
    list_responses,
    retrieve_model,
)
from server.api.many import cancel_many
from server.api.metrics import show_metrics
from server.api.middleware import Handler, open_to_all
from server.api.operation import UNKNOWN, forward_operation
from server.api.overview import list_deployments, list_processes, show_tallies
from server.api.retrieve import retrieve_response
from server.api.ui import show_page
from server.api.usage import report_usage
from server.api.webhooks import (
    create_endpoint,
    delete_endpoint,
    list_deliveries,
    list_endpoints,
    list_event_types,
    redeliver,
    retrieve_endpoint,
    rotate_secret,
    test_endpoint,
    update_endpoint,
)
from server.errors import NotFound, shown

PREFIXES = ("/v1", "", "/openai/v1", "/openai", "/openai/deployments/{model:[^/]+}")
"""`/v1` is OpenAI's; the empty one suits clients whose base URL lacks it; the others are those of Azure's SDK.

Azure's query parameter `api-version` is ignored.
"""

_ANY = ("GET", "POST", "DELETE")
"""The methods of operations that Pollux does not know."""

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/responses", create_response),
    ("GET", "/responses", list_responses),
    ("GET", "/responses/{id:[^/]+}", retrieve_response),
    ("POST", "/responses/{id:[^/]+}/cancel", cancel_response),
    ("DELETE", "/responses/{id:[^/]+}", delete_response),
    ("GET", "/responses/{id:[^/]+}/input_items", list_input_items),
    ("POST", "/responses/cancel", cancel_many),
    ("POST", "/responses/compact", compact_input),
    ("POST", "/responses/input_tokens", count_input_tokens),
    *((method, f"/responses/{{id:[^/]+}}/{{operation:{UNKNOWN}}}", forward_operation) for method in _ANY),
    ("GET", "/events", stream_events),
    ("GET", "/usage", report_usage),
    ("GET", "/jobs", list_jobs),
    ("GET", "/jobs/{id:[^/]+}", retrieve_job),
    ("GET", "/deployments", list_deployments),
    ("GET", "/processes", list_processes),
    ("GET", "/tallies", show_tallies),
    ("GET", "/webhook_event_types", list_event_types),
    ("POST", "/webhook_endpoints", create_endpoint),
    ("GET", "/webhook_endpoints", list_endpoints),
    ("GET", "/webhook_endpoints/{id:[^/]+}", retrieve_endpoint),
    ("POST", "/webhook_endpoints/{id:[^/]+}", update_endpoint),
    ("DELETE", "/webhook_endpoints/{id:[^/]+}", delete_endpoint),
    ("POST", "/webhook_endpoints/{id:[^/]+}/rotate_secret", rotate_secret),
    ("POST", "/webhook_endpoints/{id:[^/]+}/test", test_endpoint),
    ("GET", "/webhook_endpoints/{id:[^/]+}/deliveries", list_deliveries),
    ("POST", "/webhook_endpoints/{id:[^/]+}/redeliver", redeliver),
    ("GET", "/models", list_models),
    ("GET", r"/models/{id:[\s\S]*[^/]}", retrieve_model),
)

OPERATIONS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/livez", livez),
    ("GET", "/readyz", readyz),
    ("GET", "/metrics", show_metrics),
    ("GET", "/health/liveliness", livez),
    ("GET", "/health/liveness", livez),
    ("GET", "/health/readiness", readyz),
)

PAGES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/ui", show_page),
    ("GET", "/ui/{file:[^/]+(?:/[^/]+)?}", show_page),
)


@open_to_all
async def not_here(request: web.Request) -> web.StreamResponse:
    """Answer every other path with 404 in a process that only runs jobs."""
    raise NotFound(f"There is no {request.method} {shown(request.path)} here: this process only runs jobs.")


def add_routes(app: web.Application) -> None:
    add_table(app, [(method, prefix + path, handler) for prefix in PREFIXES for method, path, handler in ROUTES])
    add_table(app, PAGES)
    add_table(app, OPERATIONS)


def add_worker_routes(app: web.Application) -> None:
    """Add only the health checks; every other path gets a 404."""
    add_table(app, OPERATIONS)
    app.router.add_route("*", r"/{path:[\s\S]*}", not_here, expect_handler=expect)


def add_table(app: web.Application, table: Iterable[tuple[str, str, Handler]]) -> None:
    """Serve a table of routes, each with and without a final slash. OPTIONS is added to all, and HEAD to each GET."""
    methods: dict[str, dict[str, Handler]] = {}
    for method, path, handler in table:
        served = methods.setdefault(path, {})
        served[method] = handler
        if method == "GET":
            served["HEAD"] = handler
    for served in methods.values():
        served["OPTIONS"] = _options([*served, "OPTIONS"])
    # aiohttp tries patterns in order, so those without the slash come first: nearly all clients use them.
    for slash in ("", "/"):
        for path, served in methods.items():
            for method, handler in served.items():
                app.router.add_route(method, path + slash, handler, expect_handler=expect)


def _options(allowed: Sequence[str]) -> Handler:
    @open_to_all
    async def options(_request: web.Request) -> web.Response:
        """Answer with the allowed methods. For a browser's preflight, `cors.py` adds the other headers."""
        return web.Response(status=204, headers={"Allow": ", ".join(allowed)})

    return options
