"""Sends a call to a deployment and passes the answer on to the client, with ids rewritten."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

from aiohttp import web

from server.api.answers import body_etag, response_answer
from server.api.context import REQUEST_ID, client_key_of, context_of
from server.api.count import count_answer
from server.api.forward import OPENING_PATIENCE_S, forward_stream
from server.api.keeper import Keeper
from server.errors import PolluxError, UpstreamRefusal, UpstreamTimeout, UpstreamUnavailable, shown
from server.protocol.reasons import without_secrets
from server.upstream.answer import EVENT_STREAM, Answer
from server.upstream.call import Call
from server.upstream.deployments import Deployment
from server.upstream.refusals import facts_of, refusal_in
from server.upstream.rewrite import Rewriter
from server.upstream.tries import Tries

log = logging.getLogger("pollux.api")

PLACE_PATIENCE_S = 5.0
"""How long a request waits for a place under `max_parallel_requests`: long enough for a burst, not for a run to end."""


class Target(NamedTuple):
    """One place where a call may be sent."""

    deployment: Deployment
    call: Call
    rewriter: Rewriter
    keeper: Keeper | None = None
    """Keeps the response that is made, where its provider does not."""


async def relay(
    request: web.Request,
    deployments: list[Deployment],
    target_for: Callable[[Deployment], Target],
    *,
    retries: int = 0,
    wished: int | None = None,
    resumed: bool = False,
) -> web.StreamResponse:
    """Call one deployment after the other until one answers, and pass its answer on, JSON or stream.

    A call is repeated only if it was refused or certainly did not reach the provider; never after a timeout, since the
    provider may be at work on it. `resumed`: a stream without any event is a normal answer.

    Raises:
        PolluxError

    """
    tries = Tries(context_of(request).upstream.health, deployments, retries, wished=wished, patience_s=PLACE_PATIENCE_S)
    # A call about an existing response has one deployment and takes no place under `max_parallel_requests`: otherwise
    # a cancel would wait for the very run that it ends.
    one = deployments[0] if "id" in request.match_info else None
    while True:
        try:
            async with nullcontext(one) if one else tries.place() as deployment:
                return await _relayed(request, target_for(deployment), may_be_empty=resumed)
        except PolluxError as error:
            await _again(request, tries, error)


async def _again(request: web.Request, tries: Tries, error: PolluxError) -> None:
    """Wait until the next try. If none is left, log the failure in one line and raise it."""
    try:
        await tries.again(error, _worthwhile)
    except PolluxError as final:
        # A 404 for an unknown response is the client's mistake, and not logged.
        unknown = final.status == 404 and "id" in request.match_info
        if isinstance(final, UpstreamRefusal | UpstreamUnavailable | UpstreamTimeout) and not unknown:
            fields = {
                "request_id": request[REQUEST_ID],
                "deployment": (tries.last or "")[:16] or None,
                "code": final.code,
                "reason": shown(without_secrets(final.message)),
                **facts_of(final),
            }
            log.warning("request failed at the provider", extra=fields)
        raise


def _with_key(request: web.Request, target: Target) -> Target:
    """The target with the client's own key, which no answer may repeat."""
    key = client_key_of(request)
    if key is None:
        return target
    if target.deployment.forwards_key:
        target.rewriter.secrets = target.rewriter.secrets.plus(key.value)
    return target._replace(call=target.call._replace(key=key))


async def _relayed(request: web.Request, target: Target, *, may_be_empty: bool) -> web.StreamResponse:
    target = _with_key(request, target)
    try:
        async with context_of(request).upstream.open(target.deployment, target.call) as answer:
            may_stream = target.call.stream or answer.content_type == EVENT_STREAM
            if may_stream and await answer.is_stream(OPENING_PATIENCE_S):
                return await forward_stream(
                    request,
                    answer,
                    target.rewriter,
                    creates=target.call.creates,
                    may_be_empty=may_be_empty,
                    keeper=target.keeper,
                )
            body = await _body_of(request, answer, target)
            if target.keeper is not None:
                await target.keeper.keep(body)
            return _answer(request, answer, body, target.rewriter)
    except PolluxError as error:
        raise target.rewriter.error(error) from error
    finally:
        count_answer(request, target.call, target.rewriter)


async def _body_of(request: web.Request, answer: Answer, target: Target) -> bytes:
    """The body of a JSON answer, rewritten.

    Raises:
        UpstreamRefusal: the body contains an error, even if the status is 200

    """
    raw = await answer.json()
    if refusal := refusal_in(raw):
        upstream = context_of(request).upstream
        raise upstream.noted(target.deployment, refusal) if target.call.creates else refusal
    return target.rewriter.json(raw)


def _worthwhile(error: PolluxError) -> bool:
    if isinstance(error, UpstreamRefusal) and error.status in (408, 409):
        return False  # the upstream may still be processing the call
    if isinstance(error, UpstreamUnavailable) and error.begun:
        return False
    return not isinstance(error, UpstreamTimeout)


def _answer(request: web.Request, answer: Answer, body: bytes, rewriter: Rewriter) -> web.Response:
    passed = answer.passed_on
    if not rewriter.is_json:
        return web.Response(status=answer.status, body=body, content_type=answer.content_type, headers=passed)
    return response_answer(request, body, etag=body_etag(body), status=rewriter.status, headers=passed)


async def fetch(request: web.Request, target: Target) -> bytes:
    """The body of one JSON answer, rewritten.

    Raises:
        PolluxError

    """
    target = _with_key(request, target._replace(rewriter=target.rewriter.again()))
    rewriter = target.rewriter
    try:
        async with context_of(request).upstream.open(target.deployment, target.call) as answer:
            return await _body_of(request, answer, target)
    except PolluxError as error:
        raise rewriter.error(error) from error
    finally:
        count_answer(request, target.call, rewriter)
