"""Wraps every request: gives it an id, authenticates the caller, and turns errors into OpenAI's error format."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time

from aiohttp import web

from server.api.authentication import authenticate
from server.api.context import BEGAN, ERROR, PRINCIPAL, REQUEST_ID, SPAN, STATUS, context_of
from server.api.operation import Handler, requested_of
from server.errors import (
    Internal,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    PolluxError,
    RequestTimeout,
    TooLarge,
    Unavailable,
    UpgradeRequired,
    shown,
)
from server.logs import bind
from storage import StoreFull, StoreUnavailable

log = logging.getLogger("pollux.api")

_SANE = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")
"""The client's request ids that are taken over: only characters that can't break a header or a log line."""

SERVER = "pollux"
"""The `Server` header. aiohttp's default reveals its own version and Python's."""


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, its principal and its span, and answer every error as OpenAI does.

    An error's body has the four keys `message`, `type`, `param` and `code`.
    """
    # All in one, because each middleware costs a request 3 µs.
    name_request(request)
    try:
        _refuse_websocket(request)
        authenticate(request)
    except PolluxError as error:
        return _refused(request, error)
    if PRINCIPAL not in request:
        return await _answered(request, handler)
    # Only now: whoever has no key can neither make spans nor have a trace of their own choice continued.
    with context_of(request).tracing.answering(request.method, _route(request), request.headers) as span:
        request[SPAN] = span
        answer = await _answered(request, _within_limits if context_of(request).shares.bounded else handler)
        span.note(owner=request[PRINCIPAL].name, request_id=request[REQUEST_ID])
        span.answered(answer.status)
        if answer.status >= 500:
            span.failed(str(answer.status))
        return answer


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (web.RequestPayloadError, RequestTimeout) as error:
        answer = _refused(request, error if isinstance(error, RequestTimeout) else MalformedBody())
        # The rest of the body can't be read, or not in time, so the next request on this connection can't be found.
        close_after(answer)
        return answer
    except PolluxError as error:
        return _refused(request, error)
    except (StoreUnavailable, StoreFull) as error:
        log.warning("answered 503: %s", error, extra={"request_id": request[REQUEST_ID]})
        return _refused(request, Unavailable("The service can't reach its store right now. Try again shortly."))
    except web.HTTPException as error:
        return _refused(request, _of_aiohttp(request, error))
    except Exception:
        log.exception("request broke", extra={"request_id": request[REQUEST_ID], "route": _route(request)})
        return _refused(request, Internal())


async def _within_limits(request: web.Request) -> web.StreamResponse:
    """Serve the request unless too many of its owner, or of its address, are open."""
    handler = request.match_info.handler
    place = request.transport.get_extra_info("peername") if request.transport is not None else None
    forwarded = request.headers.getall("X-Forwarded-For", ())
    whatever = requested_of(request).ends_work
    with context_of(request).shares.one(request[PRINCIPAL].name, place, forwarded, whatever=whatever):
        return await handler(request)


def _refuse_websocket(request: web.Request) -> None:
    if request.headers.get("Upgrade", "").lower() == "websocket":
        raise UpgradeRequired


def name_request(request: web.Request) -> None:
    """Note when the request came, and give it its id: the client's `X-Request-Id` if well-formed, else a new one."""
    request[BEGAN] = time.perf_counter()
    given = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = given if given and _SANE.fullmatch(given) else new_request_id()
    bind(request_id=request[REQUEST_ID])


_PROCESS, _NUMBERS = secrets.token_hex(8), itertools.count(1)


def new_request_id() -> str:
    """A unique but guessable id: a counter behind a random prefix. Chance for each id costs as much as a middleware."""
    return f"req_{_PROCESS}{next(_NUMBERS):016x}"


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the request id on every answer, streams included. It is connected to the signal `on_response_prepare`."""
    request[STATUS] = response.status
    headers = response.headers
    headers["X-Request-Id"] = request.get(REQUEST_ID) or new_request_id()
    headers["Server"] = SERVER


async def adapt(request: web.Request, response: web.StreamResponse) -> None:
    """Put on an answer what the config says of pages of other origins.

    Once the process is to end, close the connection after each answer, so that the next request goes elsewhere.
    """
    context = context_of(request)
    context.cors.stamp(request, response)
    if context.phase.leaving:
        close_after(response)


def close_after(response: web.StreamResponse) -> None:
    """Make an answer, whose headers are not out yet, the last one on its connection."""
    response.headers["Connection"] = "close"
    response.force_close()


def _refused(request: web.Request, error: PolluxError) -> web.Response:
    request[ERROR] = type(error).__name__
    return error_answer(error)


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
