"""What a process answers before it has its store: that it lives, and that it can't serve yet."""

from __future__ import annotations

from aiohttp import web

from server.api.expect import expect
from server.api.health import livez
from server.api.middleware import guard, open_to_all, stamp
from server.api.routes import OPERATIONS, add_table
from server.errors import Unavailable


@open_to_all
async def not_yet(_request: web.Request) -> web.StreamResponse:
    """Refuse all the rest, whoever asks: keys are looked at later.

    Raises:
        Unavailable

    """
    raise Unavailable("This instance is starting: it waits for its store. Try again shortly.")


def starting_app() -> web.Application:
    """Liveness is 200: to restart the process would not bring the store back. Everything else is 503."""
    app = web.Application(middlewares=[guard])
    app.on_response_prepare.append(stamp)
    app.on_response_prepare.append(_close)
    add_table(app, [row for row in OPERATIONS if row[2] is livez])
    app.router.add_route("*", r"/{path:[\s\S]*}", not_yet, expect_handler=expect)
    return app


async def _close(_request: web.Request, response: web.StreamResponse) -> None:
    """A connection that stayed open would be cut as soon as the process serves."""
    response.headers["Connection"] = "close"
    response.force_close()
