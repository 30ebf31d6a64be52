"""The application that answers while the process waits for its store: liveness is 200, everything else is 503."""

from __future__ import annotations

from aiohttp import web

from server.api.health import livez
from server.api.middleware import close_after, guard, stamp
from server.api.router import add_rest, add_table
from server.api.routes.table import PROBES
from server.errors import Unavailable


async def not_yet(_request: web.Request) -> web.StreamResponse:
    """Refuse every other request. API keys are not checked yet.

    Raises:
        Unavailable

    """
    raise Unavailable("This instance is starting: it waits for its store. Try again shortly.")


def starting_app() -> web.Application:
    """The application to serve until the store answers. Liveness is 200, since a restart would not repair the store."""
    app = web.Application(middlewares=[guard])
    app.on_response_prepare.append(stamp)
    app.on_response_prepare.append(_close)
    add_table(app, [row for row in PROBES if row.handler is livez])
    add_rest(app, not_yet)
    return app


async def _close(_request: web.Request, response: web.StreamResponse) -> None:
    """Close the connection after each answer: an open one would be cut when the real application takes over."""
    close_after(response)
