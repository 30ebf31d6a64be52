"""Sends a call to a deployment and passes the answer on to the client, with ids rewritten."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiohttp import web

from server.api.answers import body_etag, response_answer
from server.api.context import REQUEST_ID, client_key_of, context_of
from server.api.count import count_answer
from server.api.forward import OPENING_PATIENCE_S, forward_stream
from server.api.keeper import Keeper
from server.errors import PolluxError, UpstreamRefusal, UpstreamTimeout, UpstreamUnavailable, shown
from server.protocol.fallbacks import Walk
from server.protocol.intake import ending_of
from server.protocol.reasons import without_secrets
from server.protocol.requests import CreateRequest
from server.upstream.answer import EVENT_STREAM, Answer
from server.upstream.call import Call
from server.upstream.deployments import Deployment
from server.upstream.refusals import facts_of, refusal_in
from server.upstream.rewrite import Rewriter
from server.upstream.rounds import Rounds

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


async def relay(request: web.Request, target: Target, *, resumed: bool = False) -> web.StreamResponse:
    """Make a call about an existing response, and pass its answer on, JSON or stream.

    It takes no place under `max_parallel_requests`: otherwise a cancel would wait for the very run that it ends.
    `resumed`: a stream without any event is a normal answer.

    Raises:
        PolluxError

    """
    try:
        return await _relayed(request, target, may_be_empty=resumed)
    except PolluxError as error:
        _log_failure(request, error, target.deployment.id)
        raise


def _with_key(request: web.Request, target: Target) -> Target:
    """The target with the client's own key, which no answer may repeat."""
    key = client_key_of(request)
    if key is None:
        return target
    if target.deployment.forwards_key:
        target.rewriter.secrets = target.rewriter.secrets.plus(key.value)
    return target._replace(call=target.call._replace(key=key))


def new_rounds(
    request: web.Request, create: CreateRequest, walk: Walk, deployments_of: Callable[[str], Sequence[Deployment]]
) -> Rounds:
    """The rounds of a request that holds a client up."""
    context = context_of(request)
    return Rounds(
        context.upstream.health,
        walk,
        deployments_of,
        context.config.num_retries,
        wished=create.wishes.num_retries,
        patience_s=PLACE_PATIENCE_S,
        about={"request_id": request[REQUEST_ID]},
    )


async def relay_new(
    request: web.Request, rounds: Rounds, target_for: Callable[[Deployment], Target]
) -> web.StreamResponse:
    """Call one deployment after the other until one answers, and pass its answer on, JSON or stream.

    A call is repeated only if it was refused or certainly did not reach the provider; never after a timeout, since the
    provider may be at work on it. Another model is asked after a timeout too.

    Raises:
        PolluxError

    """
    while True:
        try:
            async with rounds.place() as deployment:
                return await _relayed(request, target_for(deployment), rounds)
        except PolluxError as error:
            try:
                await rounds.again(error, _worthwhile)
            except PolluxError as final:
                _log_failure(request, final, rounds.blamed)
                raise


def _log_failure(request: web.Request, error: PolluxError, deployment: str | None) -> None:
    """Log one line for a request that failed at the provider."""
    # A 404 for an unknown response is the client's mistake, and not logged.
    unknown = error.status == 404 and "id" in request.match_info
    if isinstance(error, UpstreamRefusal | UpstreamUnavailable | UpstreamTimeout) and not unknown:
        fields = {
            "request_id": request[REQUEST_ID],
            "deployment": (deployment or "")[:16] or None,
            "code": error.code,
            "reason": shown(without_secrets(error.message)),
            **facts_of(error),
        }
        log.warning("request failed at the provider", extra=fields)


async def _relayed(
    request: web.Request, target: Target, rounds: Rounds | None = None, *, may_be_empty: bool = False
) -> web.StreamResponse:
    target = _with_key(request, target)
    try:
        async with context_of(request).upstream.open(target.deployment, target.call) as answer:
            try:
                return await _passed_on(request, answer, target, rounds, may_be_empty=may_be_empty)
            finally:
                # Only of the call that made it: of each later one, its tokens would count again.
                if target.call.spends and target.rewriter.newest is not None:
                    answer.span.produced(target.rewriter.newest)
    except PolluxError as error:
        raise target.rewriter.error(error) from error
    finally:
        count_answer(request, target.call, target.rewriter)


async def _passed_on(
    request: web.Request, answer: Answer, target: Target, rounds: Rounds | None, *, may_be_empty: bool
) -> web.StreamResponse:
    headers = {**answer.passed_on, **(_told(rounds, target) if rounds is not None else {})}
    may_stream = target.call.stream or answer.content_type == EVENT_STREAM
    if may_stream and await answer.is_stream(OPENING_PATIENCE_S):
        return await forward_stream(
            request,
            answer,
            target.rewriter,
            headers=headers,
            creates=target.call.creates,
            may_be_empty=may_be_empty,
            may_go_on=rounds.may_go_on if rounds is not None else _never,
            keeper=target.keeper,
        )
    body = await _body_of(request, answer, target)
    if target.keeper is not None:
        await target.keeper.keep(body)
    return _answer(request, answer, body, target.rewriter, headers)


async def _body_of(request: web.Request, answer: Answer, target: Target) -> bytes:
    """The body of a JSON answer, rewritten.

    Raises:
        UpstreamRefusal: the body contains an error, even if the status is 200
        UpstreamUnavailable: it can't be translated into a response

    """
    raw = await answer.json()
    if refusal := refusal_in(raw):
        upstream = context_of(request).upstream
        raise upstream.noted(target.deployment, refusal) if target.call.creates else refusal
    if target.call.creates and not target.deployment.keeps_responses and (ending := ending_of(raw)).upstream is None:
        raise UpstreamUnavailable(str(ending.error_fields.get("message")), begun=True)
    return target.rewriter.json(raw)


def _never(_error: PolluxError) -> bool:
    return False


def _worthwhile(error: PolluxError) -> bool:
    if isinstance(error, UpstreamRefusal) and error.status in (408, 409):
        return False  # the upstream may still be processing the call
    if isinstance(error, UpstreamUnavailable) and error.begun:
        return False
    return not isinstance(error, UpstreamTimeout)


def _told(rounds: Rounds, target: Target) -> dict[str, str]:
    """LiteLLM's headers that tell which model has answered."""
    return {
        "x-litellm-model-id": target.deployment.id,
        "x-litellm-model-group": "".join(c if c.isascii() else "?" for c in shown(rounds.model)),
        "x-litellm-attempted-fallbacks": str(rounds.fallbacks),
    }


def _answer(
    request: web.Request, answer: Answer, body: bytes, rewriter: Rewriter, headers: Mapping[str, str]
) -> web.Response:
    if not rewriter.is_json:
        return web.Response(status=answer.status, body=body, content_type=answer.content_type, headers=headers)
    return response_answer(request, body, etag=body_etag(body), status=rewriter.status, headers=headers)


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
