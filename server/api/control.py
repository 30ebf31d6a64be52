"""POST /responses/{id}/cancel and DELETE /responses/{id}."""

from __future__ import annotations

import logging
from uuid import uuid4

from aiohttp import web

from server.api.answers import json_answer
from server.api.context import REQUEST_ID, context_of
from server.api.headers import forwarded_headers
from server.api.query import Wait
from server.api.references import Foreign, named_response
from server.api.relay import Target, relay
from server.api.retrieve import answer_record
from server.errors import BadRequest, ResponseNotFound
from server.protocol.ids import has_polling_form
from server.protocol.lifecycle import Status
from server.protocol.status_events import DELETED, event_of
from server.responses.cancel import cancel
from server.upstream.call import Call
from storage import CancelOutcome, Record

log = logging.getLogger("pollux.api")


async def cancel_response(request: web.Request) -> web.StreamResponse:
    found = await named_response(request)
    if isinstance(found, Foreign):
        return await _forward(request, found, "POST", "cancel")
    await cancel_record(request, found)
    return await answer_record(request, found.id, Wait())


async def cancel_record(request: web.Request, record: Record) -> None:
    """Cancel a cached response; nothing happens if it was cancelled before.

    Raises:
        ResponseNotFound: it is gone meanwhile
        BadRequest: it has ended otherwise
        StoreError

    """
    if not has_polling_form(record.id):
        raise BadRequest("Cannot cancel a synchronous response.")
    outcome = await cancel(context_of(request).store, record)
    if outcome is CancelOutcome.CANCELLED:
        context_of(request).metrics.response_ended(record.model, Status.CANCELLED)
        log.info("response cancelled", extra=_told(request, record.id, Status.CANCELLED))
        return
    ended = None if outcome is CancelOutcome.GONE else await context_of(request).store.responses.find(record.id)
    if ended is None:
        raise ResponseNotFound(record.id)
    raise BadRequest(f"Cannot cancel a {ended.status} response.")


async def delete_response(request: web.Request) -> web.StreamResponse:
    found = await named_response(request)
    if isinstance(found, Foreign):
        return await _forward(request, found, "DELETE")
    if not await context_of(request).store.responses.delete(found, uuid4().hex):
        raise ResponseNotFound(found.id)
    log.info("response deleted", extra=_told(request, found.id, DELETED))
    return json_answer(request, {"id": found.id, "object": "response", "deleted": True})


def _told(request: web.Request, response_id: str, status: str) -> dict[str, str]:
    """What the log says of a change of status."""
    event = event_of(status, response_id)
    return {"response_id": response_id, "request_id": request[REQUEST_ID], "event": event}


async def _forward(request: web.Request, found: Foreign, method: str, *path: str) -> web.StreamResponse:
    call = Call(method, (found.provider_id, *path), headers=forwarded_headers(request))
    return await relay(request, Target(found.deployment, call, found.rewriter))
