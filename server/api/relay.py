"""Passing through: a call to a deployment, and its answer to the client, with ids rewritten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import aiohttp
from aiohttp import web

from server.api.answers import body_etag, response_answer, status_in
from server.api.context import context_of
from server.api.query import Wait
from server.api.sse import HEARTBEAT_S, SseStream, StreamAborted
from server.errors import PolluxError, UpstreamRefusal, UpstreamTimeout, UpstreamUnavailable
from server.protocol.lifecycle import TERMINAL_EVENTS
from server.protocol.sse import SseParser
from server.upstream.client import Call, is_passing, read_body
from server.upstream.deployments import Deployment
from server.upstream.rewrite import Rewriter
from server.upstream.tries import Tries

_FORWARDED_REQUEST = ("Idempotency-Key", "OpenAI-Beta", "X-Client-Request-Id", "traceparent", "tracestate")
"""What goes upstream of a client's headers. Its credentials never do."""
_FORWARDED_ANSWER = ("openai-processing-ms", "openai-version", "openai-poll-after-ms")

PLACE_PATIENCE_S = 5.0
"""How long a request waits where `max_parallel_requests` leaves no place: for a burst, not for a run to end."""

_LAST_EVENTS = frozenset(TERMINAL_EVENTS) | {"error"}


class Target(NamedTuple):
    """One place where a call may be sent."""

    deployment: Deployment
    call: Call
    rewriter: Rewriter


def client_headers(request: web.Request) -> dict[str, str]:
    """The headers of a client that an upstream gets."""
    return {name: request.headers[name] for name in _FORWARDED_REQUEST if name in request.headers}


async def relay(
    request: web.Request,
    deployments: list[Deployment],
    target_for: Callable[[Deployment], Target],
    *,
    retries: int = 0,
    resumed: bool = False,
) -> web.StreamResponse:
    """Call one deployment after the other until one answers, and pass its answer on, JSON or stream.

    Only what certainly changed nothing, or was refused, is tried again; a timeout is not. `resumed`: a stream
    without any event is a normal answer.

    Raises:
        PolluxError

    """
    tries = Tries(context_of(request).upstream.health, deployments, retries, patience_s=PLACE_PATIENCE_S)
    # What is about one response has one deployment, and needs no place: a cancel must not wait for what it ends.
    one = deployments[0] if "id" in request.match_info else None
    while True:
        try:
            async with nullcontext(one) if one else tries.place() as deployment:
                return await _relayed(request, target_for(deployment), may_be_empty=resumed)
        except PolluxError as error:
            await tries.again(error, _worthwhile)


async def _relayed(request: web.Request, target: Target, *, may_be_empty: bool) -> web.StreamResponse:
    try:
        async with context_of(request).upstream.open(target.deployment, target.call) as answer:
            if answer.content_type == "text/event-stream":
                return await _stream(request, answer, target.rewriter, may_be_empty=may_be_empty)
            body = target.rewriter.json(await read_body(answer))
            return _answer(request, answer, body, target.rewriter.status)
    except PolluxError as error:
        raise target.rewriter.error(error) from error


def _worthwhile(error: PolluxError) -> bool:
    if isinstance(error, UpstreamRefusal) and error.status in (408, 409):
        return False  # the upstream may be at work on it
    if isinstance(error, UpstreamUnavailable) and error.begun:
        return False
    return is_passing(error) and not isinstance(error, UpstreamTimeout)


def _answer(request: web.Request, answer: aiohttp.ClientResponse, body: bytes, status: str) -> web.Response:
    passed = {name: answer.headers[name] for name in _FORWARDED_ANSWER if name in answer.headers}
    if answer.content_type != "application/json":
        return web.Response(status=answer.status, body=body, content_type=answer.content_type, headers=passed)
    return response_answer(request, body, etag=body_etag(body), status=status, headers=passed)


async def fetch(request: web.Request, target: Target) -> bytes:
    """The body of one JSON answer, rewritten.

    Raises:
        PolluxError

    """
    rewriter = target.rewriter.again()
    try:
        async with context_of(request).upstream.open(target.deployment, target.call) as answer:
            return rewriter.json(await read_body(answer))
    except PolluxError as error:
        raise rewriter.error(error) from error


def foreign_answer(request: web.Request, body: bytes, wait: Wait) -> web.Response:
    """A provider's Response object as the answer to a GET or POST that may have waited."""
    return response_answer(request, body, etag=body_etag(body), status=status_in(body), wait=wait)


async def _stream(
    request: web.Request, answer: aiohttp.ClientResponse, rewriter: Rewriter, *, may_be_empty: bool
) -> web.StreamResponse:
    stream = SseStream(request)
    try:
        await stream.start()
        last = await _pass_on(answer, rewriter, stream)
    except StreamAborted:
        return stream.response
    except (aiohttp.ClientError, OSError, ValueError, TypeError, PolluxError):
        stream.abort()
        return stream.response
    if last in _LAST_EVENTS or (last is None and may_be_empty):
        await stream.end()
    else:
        stream.abort()
    return stream.response


async def _pass_on(answer: aiohttp.ClientResponse, rewriter: Rewriter, stream: SseStream) -> str | None:
    """Pass all events on; returns the type of the last one that ends or may end a stream."""
    parser, last = SseParser(), None
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                chunk = await answer.content.readany()
        except aiohttp.ServerTimeoutError:
            raise
        except TimeoutError:
            await stream.heartbeat()
            continue
        if not chunk:
            return last
        passed = []
        for event in parser.feed(chunk):
            if event.data != b"[DONE]":
                last = event.name or rewriter.type_of(event.data)
            passed.append(rewriter.event(event))
        if passed:
            await stream.write(b"".join(passed))
        else:
            await stream.heartbeat()  # the upstream's own are not passed on, yet they keep us from being silent
