"""Lists: a response's input items, the caller's cached responses, and the models."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from server.api.answers import json_answer
from server.api.context import Context, context_of, principal_of
from server.api.headers import client_headers
from server.api.many import retrieve_many
from server.api.query import choice, includes, limit, unconditional_wait_of
from server.api.references import Foreign, find_record, named_response
from server.api.relay import Target, relay
from server.errors import InvalidValue, ModelNotFound, ResponseNotFound, shown
from server.keyring import Principal
from server.protocol import jsontext
from server.protocol.lifecycle import Status
from server.protocol.requests import input_items, stored_request
from server.responses.many import Until
from server.responses.view import View
from server.upstream.call import Call
from storage import Record, StoreError, StoreFull, StoreUnavailable

log = logging.getLogger("pollux.api")

ORDERS = ("asc", "desc")
STATUSES = tuple(Status)
MODELS_SINCE = 1735689600
"""The `created` of every model: SDKs require an integer, and the config does not say when a model was made."""


async def list_input_items(request: web.Request) -> web.StreamResponse:
    most, order = limit(request), choice(request, "order", ORDERS, "desc")
    found = await named_response(request)
    if isinstance(found, Foreign):
        return await _foreign_items(request, found, most, order)
    raw = await context_of(request).store.responses.read_request(found.id)
    if raw is None:
        raise ResponseNotFound(found.id)
    items = input_items(stored_request(raw), found.id)
    if order == "desc":
        items.reverse()
    after = request.query.get("after")
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise InvalidValue(f"There is no item with id '{shown(after)}' in this list.", param="after")
        items = items[ids.index(after) + 1 :]
    return json_answer(request, _page(items[:most], more=len(items) > most))


async def _foreign_items(request: web.Request, found: Foreign, most: int, order: str) -> web.StreamResponse:
    query = [("limit", str(most)), ("order", order), *(("include[]", value) for value in includes(request))]
    if "after" in request.query:
        query.append(("after", request.query["after"]))
    call = Call("GET", (found.provider_id, "input_items"), urlencode(query), headers=client_headers(request))
    return await relay(request, Target(found.deployment, call, found.rewriter))


def _page(items: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": more,
    }


async def list_responses(request: web.Request) -> web.StreamResponse:
    """The caller's own cached responses, newest first; or those that `ids` names."""
    if "ids" in request.query or "ids[]" in request.query:
        return await retrieve_many(request)
    context, principal = context_of(request), principal_of(request)
    # There is nothing to wait for; a bad wait is refused all the same.
    unconditional_wait_of(request)
    choice(request, "until", tuple(Until), Until.ANY)
    most, after = limit(request), request.query.get("after")
    status = choice(request, "status", STATUSES, "") if "status" in request.query else None
    if after is not None and await find_record(context, principal, after) is None:
        raise InvalidValue(f"There is no response with id '{shown(after)}' in this list.", param="after")
    wanted: list[Record] = []
    async for record in context.store.responses.owned(principal.name, after):
        if (status is None or record.status == status) and context.ways.may_use(principal, record.model):
            wanted.append(record)
        if len(wanted) > most:
            break
    views = await asyncio.gather(*(_view(context, record) for record in islice(wanted, most)))
    # A response that expired since `owned` read it is left out; one that changed is shown in its current state.
    items = [jsontext.loads(view.body) for view in views if view is not None]
    return json_answer(request, _page(items, more=len(wanted) > most))


async def _view(context: Context, record: Record) -> View | None:
    """The view of one listed response; None if its record is unreadable, so that the others are still listed."""
    try:
        return await context.views.view(record.id)
    except (StoreUnavailable, StoreFull):
        raise
    except StoreError as error:
        log.warning("unreadable response left out of a list: %s", error, extra={"response_id": record.id})
        return None


async def list_models(request: web.Request) -> web.Response:
    context, principal = context_of(request), principal_of(request)
    names = [name for name in context.deployments.model_names if _is_for(context, principal, name)]
    return json_answer(request, {"object": "list", "data": [_model(request, name) for name in names]})


async def retrieve_model(request: web.Request) -> web.Response:
    context, name = context_of(request), request.match_info["id"]
    if not _is_for(context, principal_of(request), name):
        raise ModelNotFound(name)
    return json_answer(request, _model(request, name))


def _is_for(context: Context, principal: Principal, name: str) -> bool:
    serving = context.deployments.serving(name)
    may_ask = not principal.is_guest or any(deployment.forwards_key for deployment in serving)
    return bool(serving) and may_ask and context.ways.may_use(principal, name)


def _model(request: web.Request, name: str) -> dict[str, Any]:
    provider = context_of(request).deployments.serving(name)[0].provider
    return {"id": name, "object": "model", "created": MODELS_SINCE, "owned_by": provider}
