"""GET /responses/{id}: answers at once or after a wait, with JSON or a stream. POST uses the same waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from itertools import chain, repeat
from urllib.parse import urlencode

from aiohttp import web

from server.api.answers import body_etag, status_in
from server.api.context import context_of, principal_of
from server.api.headers import client_headers
from server.api.hold import State, answer_after
from server.api.query import Wait, flag, includes, integer, wait_of
from server.api.references import Foreign, named_response
from server.api.relay import Target, fetch, relay
from server.api.stream import stream_record
from server.errors import BadRequest, ResponseNotFound
from server.protocol.lifecycle import UNFINISHED
from server.responses.view import View, etag_of
from server.upstream.call import Call
from storage import End, Record, steps_and_end


def state_of(view: View) -> State:
    return State(view.body, view.etag, view.record.status)


async def retrieve_response(request: web.Request) -> web.StreamResponse:
    streamed = flag(request, "stream", default=False) and request.method != "HEAD"
    # All are read, so that a bad one is refused also where it would do nothing.
    wait, after = wait_of(request), integer(request, "starting_after")
    padded = flag(request, "include_obfuscation", default=True)
    found = await named_response(request)
    if isinstance(found, Record):
        if streamed:
            return await _stream(request, found, after, padded=padded)
        return await answer_record(request, found.id, wait)
    if streamed:
        return await relay(request, target_of(request, found, stream=True), resumed=after is not None)
    return await answer_foreign(request, found, wait, await fetch(request, target_of(request, found)))


async def answer_record(
    request: web.Request, response_id: str, wait: Wait, shown: Callable[[View], State] = state_of
) -> web.StreamResponse:
    """Answer with a cached response after the granted wait; `shown` makes the object from its view.

    Raises:
        ResponseNotFound: also if the response is deleted or expires during the wait
        StoreUnavailable

    """

    async def look(seconds: float) -> State:
        view = await _waited_for(request, response_id, Wait(seconds, wait.known)) if seconds else None
        view = view or await context_of(request).views.view(response_id)
        if view is None:
            raise ResponseNotFound(response_id)
        return shown(view)

    return await answer_after(request, wait, look)


async def answer_foreign(
    request: web.Request, found: Foreign, wait: Wait, body: bytes, shown: Callable[[bytes], bytes] = bytes
) -> web.StreamResponse:
    """Answer with a native response after the granted wait; `body` is its state as last fetched."""
    newest = body

    async def look(seconds: float) -> State:
        nonlocal newest
        newest = await _wait_foreign(request, found, Wait(seconds, wait.known), newest)
        return State(shown(newest), body_etag(newest), status_in(newest))

    return await answer_after(request, wait, look)


async def _waited_for(request: web.Request, response_id: str, wait: Wait) -> View | None:
    """Sleep until the response ends, differs from what the client has, or is gone, or until the wait is over.

    Returns the last state that was read, if it was read as a view. The caller then need not read it again.
    """
    context = context_of(request)
    # The first look needs the record alone. A look after a notification most likely ends the wait, so it reads the
    # whole view, and the answer needs no second read.
    looks = chain([context.views.find], repeat(context.views.view))
    states = context.hub.observe(
        steps_and_end(response_id) if wait.known else (End(response_id),),
        lambda: next(looks)(response_id),
        deadline=asyncio.get_running_loop().time() + (wait.seconds or 0),
    )
    seen: Record | View | None = None
    async with aclosing(states):
        async for seen in states:
            record = seen.record if isinstance(seen, View) else seen
            if record is None or record.terminal or (wait.known and not wait.has(etag_of(record))):
                break
    return seen if isinstance(seen, View) else None


async def _stream(request: web.Request, record: Record, after: int | None, *, padded: bool) -> web.StreamResponse:
    if not record.stream:
        raise BadRequest(
            "This response cannot be streamed because it was not created with stream=true.", param="stream"
        )
    return await stream_record(request, record.id, after=-1 if after is None else after, obfuscation=padded)


def target_of(request: web.Request, found: Foreign, *, stream: bool = False) -> Target:
    query = [("include[]", value) for value in includes(request)]
    if stream:
        query.append(("stream", "true"))
        query += [(n, request.query[n]) for n in ("starting_after", "include_obfuscation") if n in request.query]
    call = Call("GET", (found.provider_id,), urlencode(query), headers=client_headers(request), stream=stream)
    return Target(found.deployment, call, found.rewriter)


async def _wait_foreign(request: web.Request, found: Foreign, wait: Wait, body: bytes) -> bytes:
    """The state of a native response after the wait. Returns `body`, its last known state, if that needs no wait."""

    def done(newest: bytes) -> bool:
        return status_in(newest) not in UNFINISHED or bool(wait.known and not wait.has(body_etag(newest)))

    if not wait.seconds or done(body):
        return body
    return await poll_foreign(request, found, done, wait.seconds) or body


async def poll_foreign(
    request: web.Request, found: Foreign, done: Callable[[bytes], bool], seconds: float
) -> bytes | None:
    """The newest state of a native response, once it is `done` or the seconds are over; None if none was fetched.

    Raises:
        PolluxError: the provider's error, unless it may pass

    """
    target = target_of(request, found)
    return await context_of(request).pollers.wait(
        f"{principal_of(request).name} {found.id}?{target.call.query}", lambda: fetch(request, target), done, seconds
    )
