"""Finds the response that an id in a request names. If the caller may not see it, the answer is the same 404."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from server.api.context import Context, context_of, principal_of
from server.errors import ResponseNotFound
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
    return ResponseNotFound(response_id, hint_for(response_id))


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


def hint_for(response_id: str) -> str:
    form = None if decode_composite(response_id) else foreign_form(response_id)
    return _HINTS[form] if form else ""


async def find_record(context: Context, principal: Principal, response_id: str) -> Record | None:
    """The record of a cached response, or of a proxied one that is kept here because its provider keeps nothing."""
    stored_as = stored_id(context, principal, response_id)
    record = None if stored_as is None else await context.store.responses.find(stored_as)
    return record if record is not None and may_see(context, principal, record) else None


def stored_id(context: Context, principal: Principal, response_id: str) -> str | None:
    """The id under which the response is stored here, if it is; None if it lives at a provider, or is none's."""
    if has_polling_form(response_id):
        return response_id
    composite = decode_composite(response_id)
    if composite is None or not _owns(context, principal, composite):
        return None
    deployment = context.deployments.get(composite.model_id)
    return None if deployment is None or deployment.keeps_responses else encode_composite(composite)


def may_see(context: Context, principal: Principal, record: Record) -> bool:
    return principal.may_see(record.owner) and context.ways.may_use(principal, record.model)


def find_foreign(context: Context, principal: Principal, response_id: str) -> Foreign | None:
    composite = decode_composite(response_id)
    if composite is None or not _owns(context, principal, composite):
        return None
    deployment = context.deployments.get(composite.model_id)
    if deployment is None or not (deployment.keeps_responses and context.ways.may_reach(principal, deployment)):
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
