"""POST /responses/input_tokens and /responses/compact: what may be asked about an input without making a response."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from server.api.body import read_body
from server.api.context import context_of, principal_of
from server.api.headers import forwarded_headers
from server.api.references import find_foreign, find_record, hint_for, new_rewriter
from server.api.relay import Target, new_rounds, relay_new
from server.api.route import Route, name_previous, route_of
from server.errors import MissingParameter, ModelNotFound, OperationNotServed, PreviousNotFound
from server.protocol.fallbacks import Fallbacks, Walk
from server.protocol.redaction import Secrets
from server.protocol.requests import CreateRequest, forwarded_request, parse_create
from server.upstream.call import COMPACT, INPUT_TOKENS, Call
from server.upstream.deployments import Deployment

_WHAT = {INPUT_TOKENS: "count the tokens of an input", COMPACT: "compact an input"}


async def count_input_tokens(request: web.Request) -> web.StreamResponse:
    """Tell how many tokens an input has. A request without a model is one about that of its previous response."""
    raw = await read_body(request)
    given = parse_create(raw, request.match_info.get("model"), needs_model=False)
    asked, serving = await _with_model(request, given)
    return await _ask(request, INPUT_TOKENS, asked, serving)


async def compact_input(request: web.Request) -> web.StreamResponse:
    """Have a conversation compacted by the model's provider, which alone can read the result."""
    asked = parse_create(await read_body(request), request.match_info.get("model"))
    return await _ask(request, COMPACT, asked, _serving(request, asked.model))


def _serving(request: web.Request, model: str) -> list[Deployment]:
    context = context_of(request)
    if not context.deployments.serving(model) or not context.ways.may_use(principal_of(request), model):
        raise ModelNotFound(model)
    return context.ways.usable(model, principal_of(request).name)


async def _with_model(request: web.Request, asked: CreateRequest) -> tuple[CreateRequest, list[Deployment]]:
    """The request with its model, and the deployments that serve it.

    The model stays empty if only the provider knows it, because the previous response lives there.

    Raises:
        MissingParameter, ModelNotFound, ModelNotServed, PreviousNotFound

    """
    if asked.model:
        return asked, _serving(request, asked.model)
    context, principal, given = context_of(request), principal_of(request), asked.previous_response_id
    if not given:
        raise MissingParameter("model")
    if record := await find_record(context, principal, given):
        return replace(asked, model=record.model), _serving(request, record.model)
    if foreign := find_foreign(context, principal, given):
        return asked, [foreign.deployment]
    raise PreviousNotFound(given, hint=hint_for(given))


async def _ask(
    request: web.Request, operation: str, asked: CreateRequest, serving: list[Deployment]
) -> web.StreamResponse:
    able = [deployment for deployment in serving if deployment.offers(operation)]
    if not able:
        raise OperationNotServed(asked.model, serving[0].provider, _WHAT[operation])
    walk = Walk(Fallbacks(), asked.model)  # another model counts otherwise, and can't read what this one has compacted
    route = await route_of(request, asked, able, walk)
    secrets = Secrets(asked.body)

    def target_for(deployment: Deployment) -> Target:
        return _target(request, operation, asked, route, deployment, secrets)

    rounds = new_rounds(request, asked, walk, lambda _: route.able(route.deployments, asked.body))
    return await relay_new(request, rounds, target_for)


def _target(
    request: web.Request, operation: str, asked: CreateRequest, route: Route, deployment: Deployment, secrets: Secrets
) -> Target:
    context, principal = context_of(request), principal_of(request)
    rewriter = new_rewriter(context, principal, deployment)
    name_previous(rewriter, asked, route)
    rewriter.secrets = secrets
    sent = route.history.put_into(asked.body, deployment)
    if asked.marked or route.history:
        sent = context.affinity.unmarked(sent, deployment, principal.name)
    sent = forwarded_request(
        sent, deployment.model_for(context.deployments.canonical(asked.model)), route.previous.provider_id or None
    )
    if not asked.model:
        del sent["model"]
    call = Call(
        "POST",
        (operation,),
        make_request=lambda: sent,
        headers=forwarded_headers(request),
        wishes=asked.wishes,
    )
    return Target(deployment, call, rewriter)
