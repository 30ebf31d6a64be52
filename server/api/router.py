"""The router: serves operations, and remembers which of its routes is which of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aiohttp import web

from server.api.expect import expect
from server.api.operation import REQUESTED, Auth, Handler, Operation, Requested, plain
from server.api.routes.table import PREFIXES, PROBES, ROUTES, UNPREFIXED
from server.errors import NotFound, shown


async def not_here(request: web.Request) -> web.StreamResponse:
    """Answer every other path with 404 in a process that only runs jobs."""
    raise NotFound(f"There is no {request.method} {shown(request.path)} here: this process only runs jobs.")


def add_routes(app: web.Application) -> None:
    add_table(app, ROUTES, PREFIXES)
    add_table(app, UNPREFIXED)


def add_worker_routes(app: web.Application) -> None:
    """Add only health and metrics; every other path gets a 404."""
    add_table(app, PROBES)
    add_rest(app, not_here)


def add_table(app: web.Application, table: Iterable[Operation], prefixes: Sequence[str] = ("",)) -> None:
    """Serve operations, each with and without a final slash. OPTIONS is added to all, and HEAD to each GET."""
    paths: dict[str, dict[str, tuple[Handler, Requested]]] = {}
    for row in table:
        served = paths.setdefault(row.path, {})
        served[row.method] = row.handler, Requested(row.auth, plain(row.path), ends_work=row.ends_work)
        if row.method == "GET":
            served["HEAD"] = served["GET"]
    for path, served in paths.items():
        served["OPTIONS"] = _options([*served, "OPTIONS"]), Requested(Auth.NONE, plain(path))
    # aiohttp tries patterns in order, so those without the slash come first: nearly all clients use them.
    for slash in ("", "/"):
        for prefix in prefixes:
            for path, served in paths.items():
                _add(app, prefix + path + slash, served)


def add_rest(app: web.Application, handler: Handler) -> None:
    """Answer whatever else is asked for. Nobody needs a key to be told that there is nothing."""
    _add(app, r"/{path:[\s\S]*}", {"*": (handler, Requested(Auth.NONE))})


def _add(app: web.Application, path: str, served: Mapping[str, tuple[Handler, Requested]]) -> None:
    """Serve, at one path, each method with its handler."""
    known = app.setdefault(REQUESTED, {})
    resource = app.router.add_resource(path)
    for method, (handler, requested) in served.items():
        known[resource.add_route(method, handler, expect_handler=expect)] = requested


def _options(allowed: Sequence[str]) -> Handler:
    async def options(_request: web.Request) -> web.Response:
        """Answer with the allowed methods. For a browser's preflight, `cors.py` adds the other headers."""
        return web.Response(status=204, headers={"Allow": ", ".join(allowed)})

    return options
