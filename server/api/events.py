"""GET /events: the changes of status of the caller's responses, as server-sent events."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial

from aiohttp import web

from server.api.answers import status_in
from server.api.context import context_of, principal_of
from server.api.headers import client_headers
from server.api.outflow import StreamAborted
from server.api.query import several
from server.api.references import Foreign, resolve
from server.api.relay import Target, fetch
from server.api.sse import HEARTBEAT_S, SseStream
from server.errors import InvalidValue, ResponseNotFound, Unavailable, UpstreamUnavailable, shown
from server.feed import FeedCut
from server.protocol.ids import has_polling_form
from server.protocol.inplace import parsed
from server.protocol.lifecycle import UNFINISHED
from server.protocol.status_events import KINDS
from server.responses.subscribe import BadCursor, Interest, NativeStatus, Subscriber, decode_cursor
from server.upstream.call import Call
from storage import Place, Shard, StoreError

MOST_RESPONSES = 200
"""Of `response_id`."""
LONGEST_POLL_S = 3600.0
"""A native response is polled for as long as somebody subscribes to it; this only bounds one call."""


async def stream_events(request: web.Request) -> web.StreamResponse:
    context = context_of(request)
    since = _since(request)
    interest = await _interest(request, since)
    if context.phase.draining:
        raise Unavailable("This instance is shutting down. Try again: another one will serve it.")
    subscriber = Subscriber(context.feed, context.store, interest)
    stream = SseStream(request)
    async with aclosing(subscriber.follow(since, tick_s=HEARTBEAT_S)) as chunks:
        first = await anext(chunks)
        if request.method == "HEAD":
            return stream.response
        try:
            await stream.start()
            await stream.write(first)
            with context.streams.one("events"):
                async for chunk in chunks:
                    await (stream.write(chunk) if chunk else stream.heartbeat(subscriber.heartbeat))
            await stream.end()
        except (StreamAborted, FeedCut, StoreError):
            # The client resumes with the last id that it has: here, or at another replica.
            stream.abort()
    return stream.response


async def _interest(request: web.Request, since: Mapping[Shard, Place] | None) -> Interest:
    context, principal = context_of(request), principal_of(request)
    kinds, models = several(request, "types"), several(request, "model")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        expected = ", ".join(KINDS)
        raise InvalidValue(f"There is no event type '{shown(unknown[0])}': expected some of {expected}.", param="types")
    ids = several(request, "response_id")
    if len(ids) > MOST_RESPONSES:
        raise InvalidValue(f"At most {MOST_RESPONSES} responses can be named, not {len(ids)}.", param="response_id")
    named = [await _named(request, response_id, since or {}) for response_id in ids]

    def is_wanted(kind: str, model: str) -> bool:
        return (not kinds or kind in kinds) and (not models or model in models)

    shards = context.store.feed.shards
    return Interest(
        owner=None if principal.is_master else principal.name,
        shards=shards if principal.is_master else [shards.of(principal.name)],
        is_wanted=is_wanted,
        may_be_told=lambda model: principal.models is None or context.ways.may_use(principal, model),
        ids=[one for one in named if not isinstance(one, Foreign)],
        natives={one.id: partial(_statuses, request, one) for one in named if isinstance(one, Foreign)},
    )


async def _named(request: web.Request, response_id: str, since: Mapping[Shard, Place]) -> str | Foreign:
    """A cached response's id, or a native response.

    Who comes back with a cursor may name a response that has been deleted meanwhile, and goes on about the others.

    Raises:
        ResponseNotFound
    """
    context = context_of(request)
    try:
        found = await resolve(request, response_id)
    except ResponseNotFound:
        is_ours = has_polling_form(response_id)
        if is_ours and context.store.feed.shards.of(response_id) in since:
            return response_id
        raise
    return found if isinstance(found, Foreign) else found.id


def _since(request: web.Request) -> dict[Shard, Place] | None:
    """Behind which places it begins; None: now. The parameter wins over the header, as `?wait` does over `Prefer`."""
    context, principal = context_of(request), principal_of(request)
    text = request.query.get("last_event_id") or request.headers.get("Last-Event-ID")
    if not text:
        return None
    shards = context.store.feed.shards
    try:
        return decode_cursor(text, shards if principal.is_master else [shards.of(principal.name)])
    except BadCursor:
        raise InvalidValue("This is not the id of an event of this feed.", param="last_event_id") from None


async def _statuses(request: web.Request, found: Foreign) -> AsyncIterator[NativeStatus]:
    """The statuses of a native response, as the poller that it shares with all who wait for it finds them out."""
    target = Target(
        found.deployment, Call("GET", (found.provider_id,), headers=client_headers(request)), found.rewriter
    )
    body: bytes | None = await fetch(request, target)
    while body is not None:
        status, found_in = status_in(body), parsed(body)
        if not status or found_in is None:
            raise UpstreamUnavailable("The provider's answer is no response.")
        response, _ = found_in
        ended = status not in UNFINISHED
        at_s, model = response.get("completed_at" if ended else "created_at"), response.get("model")
        metadata = response.get("metadata")
        yield NativeStatus(
            status,
            int(at_s if isinstance(at_s, int | float) and 0 < at_s < math.inf else time.time()),
            model if isinstance(model, str) else None,
            metadata if isinstance(metadata, dict) else {},
        )
        if ended:
            return
        changed = partial(_has_another_status, status)
        body = await context_of(request).pollers.wait(
            f"{found.id}?", lambda: fetch(request, target), changed, LONGEST_POLL_S
        )
        if body is not None and not changed(body):
            return  # the process drains


def _has_another_status(known: str, body: bytes) -> bool:
    return status_in(body) != known
