"""Around every request: its id, its errors in the contract's shape, and who is calling."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from server.api.context import PRINCIPAL, REQUEST_ID, context_of
from server.errors import (
    Internal,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    PolluxError,
    TooLarge,
    Unavailable,
    UpgradeRequired,
    shown,
)
from storage import StoreFull, StoreUnavailable

log = logging.getLogger("pollux.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SANE = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")
"""What we repeat of a client's own request id: nothing that could break a header or a log line."""

SERVER = "pollux"
"""The `Server` header: by itself aiohttp tells its own version and Python's."""

OPEN_TO_ALL = "open_to_all"
"""Set on a handler that asks for no key. All others do."""


def open_to_all(handler: Handler) -> Handler:
    setattr(handler, OPEN_TO_ALL, True)
    return handler


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id and its principal, and answer every error with its status and the four keys."""
    name_request(request)
    try:
        _refuse_websocket(request)
        # Here and not in a middleware of its own, each of which costs a request 3 µs.
        authenticate(request)
        return await handler(request)
    except PolluxError as error:
        return error_answer(error)
    except (StoreUnavailable, StoreFull) as error:
        log.warning("answered 503: %s", error, extra={"request_id": request[REQUEST_ID]})
        return error_answer(Unavailable("The service can't reach its store right now. Try again shortly."))
    except web.RequestPayloadError:
        answer = error_answer(MalformedBody())
        # What is left of it can't be read either.
        answer.force_close()
        return answer
    except web.HTTPException as error:
        return error_answer(_of_aiohttp(request, error))
    except Exception:
        log.exception("request broke", extra={"request_id": request[REQUEST_ID], "route": _route(request)})
        return error_answer(Internal())


def _refuse_websocket(request: web.Request) -> None:
    if request.headers.get("Upgrade", "").lower() == "websocket":
        raise UpgradeRequired


def name_request(request: web.Request) -> None:
    """Give the request its id: the client's own, if it is a sane one."""
    given = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = given if given and _SANE.fullmatch(given) else new_request_id()


def authenticate(request: web.Request) -> None:
    """Find the principal, before anything else is looked at."""
    if not getattr(request.match_info.handler, OPEN_TO_ALL, False):
        request[PRINCIPAL] = context_of(request).keyring.authenticate(request.headers)


_PROCESS, _NUMBERS = secrets.token_hex(8), itertools.count(1)


def new_request_id() -> str:
    """Unique, not secret: chance for each costs as much as a middleware."""
    return f"req_{_PROCESS}{next(_NUMBERS):016x}"


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the request id on every answer, streams included (a signal of `on_response_prepare`)."""
    headers = response.headers
    headers["X-Request-Id"] = request.get(REQUEST_ID) or new_request_id()
    headers["Server"] = SERVER


def error_answer(error: PolluxError) -> web.Response:
    return web.Response(status=error.status, body=error.body(), content_type="application/json", headers=error.headers)


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> PolluxError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge(context_of(request).config.pollux.max_body_bytes)
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(request.method, error.allowed_methods)
    if error.status == 404:
        return NotFound(f"There is no {request.method} {shown(request.path)}. {_hint(request.path)}")
    answer = PolluxError(error.reason)
    answer.status, answer.type = error.status, "invalid_request_error"
    return answer


def _hint(path: str) -> str:
    if path.endswith("/chat/completions"):
        return "Pollux serves the Responses API: send the request to /v1/responses."
    return "The Responses API is served under /v1/responses."


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else "none"
