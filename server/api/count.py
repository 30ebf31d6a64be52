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
from storage import TERMINAL

log = logging.getLogger("pollux.usage")


def count_answer(request: web.Request, call: Call, rewriter: Rewriter) -> None:
    """Count the response in the answer that was just passed on, if it has ended. Nothing here fails an answer."""
    try:
        response = rewriter.newest
        if response is None or not _has_ended(response, spends=call.spends):
            return
        context, principal, tokens = context_of(request), principal_of(request), tokens_in(response)
        if call.spends and tokens is not None:
            context.upstream.health.spent(rewriter.deployment, tokens.input + tokens.output)
        if response.get("background") is True:
            if (composite := decode_composite(rewriter.subject)) is not None:
                owner, raw_id = _owner_of(context, composite, principal), composite.response_id
                context.meter.count_native(owner, rewriter.deployment, tokens, raw_id, response.get("created_at"))
        elif call.spends:  # later answers about it count no more
            context.meter.count(principal.name, rewriter.deployment, tokens)
    except Exception:
        log.exception("the usage of a response is not counted")


def _has_ended(response: dict[str, Any], *, spends: bool) -> bool:
    status = response.get("status")
    # A compaction has no status, and a weak provider may leave it out of a response.
    return status in TERMINAL or (spends and status is None and tokens_in(response) is not None)


def _owner_of(context: Context, composite: CompositeId, asking: Principal) -> str:
    """Whose response it is: the master key may ask for that of another owner. It is the master's if that has no key."""
    if not asking.is_master:
        return asking.name
    owners = (name for name in context.keyring.owners if is_owned(composite, name, context.id_secrets))
    return next(owners, asking.name)
