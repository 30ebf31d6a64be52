"""The simulator as an aiohttp application."""

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
from aiohttp import web

from server.simulator.context import SIMULATOR, Simulator
from server.simulator.endpoints import is_for_the_api, routes
from server.simulator.errors import ApiError
from server.simulator.messages.endpoints import is_messages
from server.simulator.messages.errors import error_body

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Larger bodies are refused with 413. Room for what Pollux lets through (50 MiB) and then some.
_MAX_BODY_BYTES = 64 * 1024 * 1024


def create_simulator(api_key: str | None = None) -> web.Application:
    """A simulator of its own, with nothing in it; with `api_key`, only for who sends it.

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
    """Every error in the shape of its dialect, also those that aiohttp makes itself: 404, 405, 413."""
    try:
        return await handler(request)
    except ApiError as error:
        failure = error
    except web.HTTPError as error:
        message = f"{error.reason}: {request.method} {request.path}"
        failure = ApiError(error.status, message)
    headers = dict(failure.headers)
    body = failure.body()
    if is_messages(request):
        headers[_request_id_header(request)] = request_id = _new_request_id()
        body = {**error_body(failure), "request_id": request_id}
    return web.Response(
        status=failure.status, body=orjson.dumps(body), headers=headers, content_type="application/json"
    )


@web.middleware
async def watch_traffic(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Note every request to the API, refused ones too, from its arrival to its end."""
    if not is_for_the_api(request):
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
    if key is None or not is_for_the_api(request):
        return await handler(request)
    given = _given_key(request)
    if not given:
        raise ApiError(401, "You didn't provide an API key: send it as 'Authorization: Bearer <key>'.")
    if not hmac.compare_digest(given.encode(errors="surrogateescape"), key.encode()):
        shown = f"{given[:3]}…{given[-4:]}" if len(given) > 11 else "…"
        raise ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
    return await handler(request)


def _given_key(request: web.Request) -> str:
    """The key in the header of Anthropic or of Azure, where they would look for it, or else as Bearer."""
    own = "x-api-key" if is_messages(request) else "api-key"
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    return request.headers.get(own) or (bearer if scheme.lower() == "bearer" else "")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault(_request_id_header(request), _new_request_id())
    if not is_messages(request):
        response.headers.setdefault("openai-version", "2020-10-01")


def _request_id_header(request: web.Request) -> str:
    return "request-id" if is_messages(request) else "x-request-id"


def _new_request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


async def _cut_connections(app: web.Application) -> None:
    # Waiting for streams to end could take an hour; a provider that stops does not do that either.
    app[SIMULATOR].traffic.cut_all()


async def _end_runs(app: web.Application) -> AsyncIterator[None]:
    yield
    app[SIMULATOR].runs.clear()
