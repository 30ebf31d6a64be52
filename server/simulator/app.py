"""The simulator as an aiohttp application."""

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
from aiohttp import web

from server.simulator.context import SIMULATOR, Simulator
from server.simulator.endpoints import routes
from server.simulator.errors import ApiError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Larger bodies are refused with 413. Room for what Pollux lets through (50 MiB) and then some.
_MAX_BODY_BYTES = 64 * 1024 * 1024


def create_simulator(api_key: str | None = None) -> web.Application:
    """A simulator of its own, with nothing in it; with `api_key`, only for who sends it as Bearer.

    Its runner needs `handler_cancellation=True`, so that a client's hang-up is noticed at once.
    """
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[answer_errors, watch_traffic, check_key])
    app[SIMULATOR] = Simulator(api_key)
    app.add_routes(routes())
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_cut_connections)
    app.cleanup_ctx.append(_end_runs)
    return app


@web.middleware
async def answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every error in OpenAI's shape, also those that aiohttp makes itself: 404, 405, 413."""
    try:
        return await handler(request)
    except ApiError as error:
        failure = error
    except web.HTTPError as error:
        message = f"{error.reason}: {request.method} {request.path}"
        failure = ApiError(error.status, message)
    body = orjson.dumps(failure.body())
    headers = failure.headers
    return web.Response(status=failure.status, body=body, headers=headers, content_type="application/json")


@web.middleware
async def watch_traffic(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Note every request to the API, refused ones too, from its arrival to its end."""
    if not request.path.startswith("/v1/"):
        return await handler(request)
    traffic = request.app[SIMULATOR].traffic
    traffic.arrive(request, await request.read())
    try:
        return await handler(request)
    except (asyncio.CancelledError, ConnectionError):
        traffic.hang_up(request)
        raise
    finally:
        traffic.leave(request)


@web.middleware
async def check_key(request: web.Request, handler: _Handler) -> web.StreamResponse:
    key = request.app[SIMULATOR].api_key
    if key is None or not request.path.startswith("/v1/"):
        return await handler(request)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise ApiError(401, "You didn't provide an API key: send it as 'Authorization: Bearer <key>'.")
    if not hmac.compare_digest(given.encode(errors="surrogateescape"), key.encode()):
        shown = f"{given[:3]}…{given[-4:]}" if len(given) > 11 else "…"
        raise ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("x-request-id", f"req_{secrets.token_hex(16)}")
    response.headers.setdefault("openai-version", "2020-10-01")


async def _cut_connections(app: web.Application) -> None:
    # Waiting for streams to end could take an hour; a provider that stops does not do that either.
    app[SIMULATOR].traffic.cut_all()


async def _end_runs(app: web.Application) -> AsyncIterator[None]:
    yield
    app[SIMULATOR].runs.clear()
