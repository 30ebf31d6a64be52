"""Finds the response that an id in a request names. If the caller may not see it, the answer is the same 404."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from server.api.context import Context, context_of, principal_of
from server.errors import PreviousNotFound, ResponseNotFound
from server.keyring import Principal
from server.protocol.ids import (
    CompositeId,
    ForeignForm,
    decode_composite,
    encode_composite,
    foreign_form,
    has_polling_form,
    is_owned,
)
from server.protocol.requests import CreateRequest
from server.responses.submit import Previous, continued
from server.upstream.deployments import Deployment
from server.upstream.rewrite import Rewriter
from storage import Record


@dataclass(frozen=True, slots=True)
class Foreign:
    """A response that lives at a provider."""

    id: str
    """The id that the client uses."""
    provider_id: str
    deployment: Deployment
    rewriter: Rewriter


async def named_response(request: web.Request) -> Record | Foreign:
    """What the id in the path names.

    Raises:
        ResponseNotFound
        StoreUnavailable

    """
    return await resolve(request, request.match_info["id"])


async def resolve(request: web.Request, response_id: str) -> Record | Foreign:
    """The response that the id in the path names.

    Raises:
        ResponseNotFound
        StoreUnavailable

    """
    context, principal = context_of(request), principal_of(request)
    found = await find_record(context, principal, response_id) or find_foreign(context, principal, response_id)
    if found is None:
        raise not_found(response_id)
    return found


def not_found(response_id: str) -> ResponseNotFound:
    return ResponseNotFound(response_id, _hint(response_id))


_HINTS = {
    ForeignForm.PROVIDER: (
        "This is the form of a provider's own ids, by which nothing is found here. LiteLLM as the client turns ids of "
        "Pollux into such ones, unless pollux.composite_ids is 'opaque'."
    ),
    ForeignForm.ENCRYPTED: (
        "This is the form of ids that LiteLLM encrypted, which nobody else can read. To migrate, set "
        "general_settings.disable_responses_id_security: true in LiteLLM some time before: the ids that it gives from "
        "then on are read here."
    ),
}
"""Advice for ids that Pollux did not make. It depends only on the id's form, so it never reveals what exists."""


def _hint(response_id: str) -> str:
    form = None if decode_composite(response_id) else foreign_form(response_id)
    return _HINTS[form] if form else ""


async def find_record(context: Context, principal: Principal, response_id: str) -> Record | None:
    if not has_polling_form(response_id, context.config.pollux.id_prefix):
        return None
    record = await context.store.responses.find(response_id)
    return record if record is not None and may_see(context, principal, record) else None


def may_see(context: Context, principal: Principal, record: Record) -> bool:
    return principal.may_see(record.owner) and may_use(context, principal, record.model)


def find_foreign(context: Context, principal: Principal, response_id: str) -> Foreign | None:
    composite = decode_composite(response_id)
    if composite is None or not _owns(context, principal, composite):
        return None
    deployment = context.deployments.get(composite.model_id)
    if deployment is None or not _may_reach(context, principal, deployment):
        return None
    known = encode_composite(composite)
    rewriter = new_rewriter(context, principal, deployment)
    rewriter.subject = rewriter.public_ids[composite.response_id] = known
    return Foreign(known, composite.response_id, deployment, rewriter)


def new_rewriter(context: Context, principal: Principal, deployment: Deployment) -> Rewriter:
    opaque = context.config.pollux.composite_ids == "opaque"
    marker = context.affinity.marker(deployment, principal.name)
    return Rewriter(deployment, marker, opaque=opaque)


def _owns(context: Context, principal: Principal, composite: CompositeId) -> bool:
    if principal.is_master:
        return True
    if composite.tag is None:
        return context.config.pollux.accept_untagged_ids
    return is_owned(composite, principal.name, context.id_secrets)


def may_use(context: Context, principal: Principal, model: str) -> bool:
    """Whether the principal may use the model, by its own name or by the `model_name` behind an alias or a wildcard."""
    return principal.may_use(model) or any(
        principal.may_use(deployment.model_name) for deployment in context.deployments.serving(model)
    )


def _may_reach(context: Context, principal: Principal, deployment: Deployment) -> bool:
    return principal.models is None or any(
        deployment in context.deployments.serving(model) for model in principal.models
    )


_NOTHING = Previous()


@dataclass(frozen=True, slots=True)
class Route:
    """The deployments on which a new response may run, and the previous response that it continues there."""

    deployments: list[Deployment]
    previous: Previous = _NOTHING


async def route_of(request: web.Request, create: CreateRequest, serving: list[Deployment]) -> Route:
    """The deployments that a request may go to: those of its model, or the one with the response that it continues.

    Raises:
        PreviousNotFound, PreviousNotFinished

    """
    given = create.previous_response_id
    if not given:
        return _by_content(request, create, serving)
    previous = await _previous(request, given)
    if not previous.deployment:
        return Route(serving, previous)
    lives_at = context_of(request).deployments.get(previous.deployment)
    if lives_at is None:
        raise PreviousNotFound(given, "belongs to a deployment that is no longer configured")
    # Any deployment of the same account can continue the response; other accounts don't know it.
    able = [one for one in serving if one == lives_at] or [one for one in serving if one.same_account(lives_at)]
    if not able:
        raise PreviousNotFound(given, f"belongs to a deployment that does not serve the model '{create.model}'")
    return Route(able[:1], Previous(able[0].id, previous.provider_id))


def _by_content(request: web.Request, create: CreateRequest, serving: list[Deployment]) -> Route:
    """The deployment whose account can decrypt or find what the request contains; all if none of `serving` can."""
    if not create.marked:
        return Route(serving)
    origin = context_of(request).affinity.origin(create.body, principal_of(request).name)
    able = [one for one in serving if one == origin] or [one for one in serving if origin and one.same_account(origin)]
    return Route(able[:1], Previous(able[0].id)) if able else Route(serving)


async def _previous(request: web.Request, given: str) -> Previous:
    context, principal = context_of(request), principal_of(request)
    if has_polling_form(given, context.config.pollux.id_prefix):
        return continued(await find_record(context, principal, given), given)
    if foreign := find_foreign(context, principal, given):
        return Previous(foreign.deployment.id, foreign.provider_id)
    # A provider's raw id does not tell its owner, so it is accepted under the same setting as an id without a tag.
    is_raw = decode_composite(given) is None
    if is_raw and (principal.is_master or context.config.pollux.accept_untagged_ids):
        return Previous("", given)
    raise PreviousNotFound(given, hint=_hint(given))
