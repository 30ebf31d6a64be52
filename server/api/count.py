"""Counts what a proxied or native response has used, when its end passes through on the way to a client."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from server.api.context import Context, context_of, principal_of
from server.keyring import Principal
from server.protocol.ids import CompositeId, decode_composite, is_owned
from server.protocol.tokens import tokens_in
from server.upstream.call import Call
from server.upstream.rewrite import Rewriter
from server.usage import spent_on
from storage import TERMINAL, Spent

log = logging.getLogger("pollux.usage")


def count_answer(request: web.Request, call: Call, rewriter: Rewriter) -> None:
    """Count the response in the answer that was just passed on, if it has ended. Nothing here fails an answer."""
    try:
        response = rewriter.newest
        if response is None or not _has_ended(response, creates=call.creates):
            return
        spent = spent_on(rewriter.deployment, response) or Spent(rewriter.deployment.model_name)
        if call.creates:
            context_of(request).upstream.health.spent(rewriter.deployment, spent.tokens)
        if response.get("background") is True:
            _count_native(context_of(request), principal_of(request), rewriter, spent)
        elif call.creates:  # later answers about it count no more
            context_of(request).meter.count(principal_of(request).name, spent)
    except Exception:
        log.exception("the usage of a response is not counted")


def _has_ended(response: dict[str, Any], *, creates: bool) -> bool:
    status = response.get("status")
    # A weak provider may leave out the status of an object that it answers with.
    return status in TERMINAL or (creates and status is None and tokens_in(response) is not None)


def _count_native(context: Context, principal: Principal, rewriter: Rewriter, spent: Spent) -> None:
    composite = decode_composite(rewriter.subject)
    if composite is None:
        return
    response = rewriter.newest or {}
    owner = _owner_of(context, composite, principal) if principal.is_master else principal.name
    context.meter.count_native(owner, spent, (composite.model_id, composite.response_id), response.get("created_at"))


def _owner_of(context: Context, composite: CompositeId, asking: Principal) -> str:
    """Whose response it is that the master key asks for; the master's, if its owner has no key any more."""
    owners = (name for name in context.keyring.owners if is_owned(composite, name, context.id_secrets))
    return next(owners, asking.name)
