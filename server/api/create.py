"""POST /responses: decide how it is served, and serve it."""

from __future__ import annotations

from time import perf_counter

from aiohttp import web

from server.api.answers import response_answer, status_in
from server.api.body import read_body
from server.api.context import BEGAN, REQUEST_ID, Context, client_key_of, context_of, principal_of
from server.api.headers import client_headers, forwarded_headers
from server.api.hold import State
from server.api.keeper import Keeper
from server.api.query import Wait, wait_of
from server.api.references import find_foreign, new_rewriter
from server.api.relay import Target, new_rounds, relay_new
from server.api.retrieve import answer_foreign, answer_record, state_of
from server.api.route import Route, name_previous, route_of
from server.api.stream import stream_record
from server.api.webhooks import take_own_webhook
from server.errors import (
    InvalidValue,
    ModelNotFound,
    ModelNotServed,
    PreviousNotFinished,
    PreviousNotFound,
    Unavailable,
    shown,
)
from server.protocol import jsontext
from server.protocol.fallbacks import Fallbacks, Walk
from server.protocol.lifecycle import LAST_OPENING, UNFINISHED
from server.protocol.redaction import Secrets
from server.protocol.requests import CreateRequest, check_cached, forwarded_request, parse_create
from server.protocol.routing import Mode, decide
from server.rates import check_rate
from server.responses.submit import Submission, Submitted
from server.responses.view import View, etag_at
from server.upstream.call import Call
from server.upstream.deployments import Deployment

LONGEST_IDEMPOTENCY_KEY = 1024


async def create_response(request: web.Request) -> web.StreamResponse:
    context, principal = context_of(request), principal_of(request)
    raw = await read_body(request)
    model = request.match_info.get("model")
    create = parse_create(raw, model)
    if model is not None:
        raw = jsontext.dumps(create.body)  # the stored request must contain the model that was named in the URL
    if not context.deployments.serving(create.model) or not context.ways.may_use(principal, create.model):
        raise ModelNotFound(create.model)
    walk = context.ways.walk(create.model, create.body, principal)
    mode, _ = decide(
        create.model,
        background=create.background,
        settings=context.config.background_mode,
        providers_of=context.deployments.providers_of,
    )
    serving = _serving(context, mode, walk, principal.name)
    if context.phase.draining and mode is not Mode.PROXIED:
        raise Unavailable("This instance is shutting down. Try again: another one will take it.")
    webhook = await take_own_webhook(request, create.body, cached=mode is Mode.CACHED)
    if mode is Mode.CACHED:
        check_cached(create.body)
    await check_rate(context.store, principal)
    if mode is Mode.CACHED:
        return await _create_cached(request, create, raw, serving, walk, webhook)
    route = await route_of(request, create, serving, walk)
    return await _forward(request, create, mode, route, walk, raw)


def _serving(context: Context, mode: Mode, walk: Walk, owner: str) -> list[Deployment]:
    """The deployments that the request goes to first; none if it falls back at once.

    Raises:
        ModelNotServed, Forbidden, InvalidValue

    """
    try:
        return _able(context, mode, walk.model, owner)
    except ModelNotServed:
        if not walk.ahead():
            raise
    return []


def _able(context: Context, mode: Mode, model: str, owner: str) -> list[Deployment]:
    """The deployments of a model that can be used in this mode.

    Raises:
        ModelNotFound, ModelNotServed: there are none
        Forbidden: none of them serves this owner
        InvalidValue: none of their providers has a background of its own

    """
    usable = context.ways.usable(model, owner)
    if mode is not Mode.NATIVE:
        return usable
    able = [deployment for deployment in usable if deployment.keeps_responses]
    if not able:
        raise InvalidValue(
            f"The provider of the model '{shown(model)}' has no background mode of its own. To have it run here, set "
            'litellm_settings.responses.background_mode.polling_via_cache to "all" or to a list with its provider.',
            param="background",
        )
    return able


async def _create_cached(
    request: web.Request, create: CreateRequest, raw: bytes, serving: list[Deployment], walk: Walk, webhook: str
) -> web.StreamResponse:
    wait = wait_of(request)
    async with context_of(request).admission.turn():
        submitted = await _submit(request, create, raw, serving, walk, webhook)
    context_of(request).metrics.create_stored(perf_counter() - request[BEGAN])
    if create.stream:
        return await stream_record(request, submitted.id, after=-1)
    if submitted.view is not None and not wait.seconds:
        state = state_of(submitted.view)
        return response_answer(request, state.body, etag=state.etag, status=state.status, wait=Wait(wait.seconds))
    return await answer_record(request, submitted.id, Wait(wait.seconds), _without_partial_output)


def _without_partial_output(view: View) -> State:
    """The answer to a create, with an empty output unless the response has ended.

    Frameworks would take a partial output for the complete one. The entity tag is that of the state with no output yet,
    so that a GET that sends this tag gets the output produced since.
    """
    if view.record.terminal:
        return state_of(view)
    started = view.record.cursor._replace(last=min(view.record.cursor.last, LAST_OPENING))
    return State(_emptied(view.body), etag_at(started), view.record.status)


def _emptied(body: bytes) -> bytes:
    """The same object with an empty output; unchanged if the response has ended."""
    if status_in(body) not in UNFINISHED:
        return body
    return jsontext.dumps({**jsontext.loads(body), "output": []})


async def _submit(
    request: web.Request, create: CreateRequest, raw: bytes, serving: list[Deployment], walk: Walk, webhook: str
) -> Submitted:
    submitter, principal = context_of(request).submitter, principal_of(request)
    key = _idempotency_key(request)
    try:
        route = await route_of(request, create, serving, walk)
        if not walk.ahead():
            route.able(route.deployments, create.body)
    except (PreviousNotFound, PreviousNotFinished):
        # In a repeated request, the previous response may have been deleted since the idempotency key was first used.
        if replayed := await submitter.replayed(raw, principal.name, key):
            return replayed
        raise
    submission = Submission(
        owner=principal.name,
        previous=route.previous,
        idempotency_key=key,
        max_in_flight=principal.max_in_flight,
        webhook=webhook,
        client_key=_sealed_key(request, [create.model, *walk.reachable()]),
        digest_of=raw,
        headers=client_headers(request),
        request_id=request[REQUEST_ID],
    )
    # What is stored for the provider holds no webhook any more.
    return await submitter.submit(create, jsontext.dumps(create.body) if webhook else raw, submission)


def _sealed_key(request: web.Request, models: list[str]) -> str:
    """The client's own key as the store keeps it, if a deployment of these models needs it; else empty."""
    context, key = context_of(request), client_key_of(request)
    if key is None or not any(one.forwards_key for model in models for one in context.ways.serving(model)):
        return ""
    return context.sealer.seal(key.value, key.owner)


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if not key:
        return None
    if len(key) > LONGEST_IDEMPOTENCY_KEY:
        raise InvalidValue(f"The Idempotency-Key is longer than {LONGEST_IDEMPOTENCY_KEY} characters.")
    if not key.isprintable():
        # This also refuses bytes that are not UTF-8.
        raise InvalidValue("The Idempotency-Key has characters that can't be printed.")
    return key


async def _forward(
    request: web.Request, create: CreateRequest, mode: Mode, route: Route, walk: Walk, raw: bytes
) -> web.StreamResponse:
    context, owner = context_of(request), principal_of(request).name
    previous = route.previous.provider_id or None
    if previous is not None:
        walk = Walk(Fallbacks(), create.model)  # only that provider has the response before

    def deployments_of(model: str) -> list[Deployment]:
        found = route.deployments if model == create.model else ()
        return route.able(found or _able(context, mode, model, owner), create.body)

    secrets = Secrets(create.body)

    def target_for(deployment: Deployment) -> Target:
        rewriter = new_rewriter(context, principal_of(request), deployment)
        name_previous(rewriter, create, route)
        rewriter.fill_from, rewriter.secrets = create.body, secrets
        sent = route.history.put_into(create.body, deployment)
        if create.marked or route.history:
            sent = context.affinity.unmarked(sent, deployment, owner)
        name = context.ways.name_at(deployment, rounds.model)
        keeper = None if deployment.keeps_responses else Keeper(context, owner, create, raw, rewriter)
        call = Call(
            "POST",
            make_request=lambda: forwarded_request(sent, deployment.model_for(name), previous),
            headers=forwarded_headers(request),
            stream=create.stream,
            wishes=create.wishes,
            response_id=keeper.raw_id if keeper else "",
            model=deployment.model_for(name),
        )
        return Target(deployment, call, rewriter, keeper if create.store else None)

    wait = wait_of(request)
    rounds = new_rounds(request, create, walk, deployments_of)
    answer = await relay_new(request, rounds, target_for)
    if mode is Mode.NATIVE and wait.seconds and isinstance(answer, web.Response):
        return await _wait_native(request, answer, Wait(wait.seconds), create, route)
    return answer


async def _wait_native(
    request: web.Request, created: web.Response, wait: Wait, create: CreateRequest, route: Route
) -> web.StreamResponse:
    """Delay the answer to a native create until the response has ended or the granted wait is over."""
    body = created.body if isinstance(created.body, bytes) else b""
    if status_in(body) not in UNFINISHED:
        return created
    response_id = jsontext.loads(body).get("id")
    # A nonconforming upstream may have sent no id.
    named = isinstance(response_id, str)
    foreign = find_foreign(context_of(request), principal_of(request), response_id) if named else None
    if foreign is None:
        return created
    name_previous(foreign.rewriter, create, route)
    return await answer_foreign(request, foreign, wait, body, _emptied)
