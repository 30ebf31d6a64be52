"""Webhook endpoints, managed as OpenAI's SDK does it; and the one that a create call may name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from aiohttp import web

from server.api.answers import json_answer
from server.api.context import Context, context_of, principal_of
from server.api.models.bodies import (
    EVENT_TYPES,
    CreateWebhookEndpoint,
    RedeliverEvent,
    RotateSecret,
    TestWebhookEndpoint,
    UpdateWebhookEndpoint,
)
from server.api.query import limit
from server.api.reading import read_as
from server.errors import BadRequest, Forbidden, InvalidType, InvalidValue, MissingParameter, NotFound, shown
from server.outbox.addresses import NotAllowed, check_host
from server.outbox.endpoints import Stored, new_secret, sealed_for_response
from server.protocol import jsontext
from server.protocol.status_events import event_of, kind_of, status_event, status_of
from server.protocol.webhook_secrets import is_secret
from storage import EndpointHealth, Past

MOST_ENDPOINTS = 20
"""Of one owner: each is looked at whenever one of its responses ends."""


async def create_endpoint(request: web.Request) -> web.Response:
    context, owner = context_of(request), _known_owner(request)
    asked = await read_as(request, CreateWebhookEndpoint)
    url = await _url(context, asked.url)
    now_s, secret = int(time.time()), new_secret()
    made = Stored(f"we_{uuid4().hex[:24]}", asked.name, url, [*asked.event_types], now_s, now_s, sealed="", hint="")
    made.give_secret(context.sealer, secret, now_s)
    if not await context.store.deliveries.add(owner, made.id, made.as_bytes(), MOST_ENDPOINTS):
        raise BadRequest(f"This key has {MOST_ENDPOINTS} webhook endpoints, its limit. Delete one first.")
    return json_answer(request, {**_object(made, EndpointHealth()), "signing_secret": secret})


async def list_endpoints(request: web.Request) -> web.Response:
    context, owner = context_of(request), principal_of(request).name
    most, after = limit(request), request.query.get("after")
    stored = await context.store.deliveries.endpoints(owner)
    read = [found for one, raw in stored.items() if (found := Stored.from_bytes(one, raw)) is not None]
    read.sort(key=lambda one: (-one.created_at, one.id))
    if after:
        ids = [one.id for one in read]
        if after not in ids:
            raise InvalidValue(f"There is no webhook endpoint with id '{shown(after)}' in this list.", param="after")
        read = read[ids.index(after) + 1 :]
    data = [_object(one, await context.store.deliveries.health(owner, one.id)) for one in read[:most]]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return json_answer(request, {"object": "list", "data": data, **ends, "has_more": len(read) > most})


async def retrieve_endpoint(request: web.Request) -> web.Response:
    return await _shown(request, await _named(request))


async def update_endpoint(request: web.Request) -> web.Response:
    context, _ = context_of(request), await _named(request)
    given = (await read_as(request, UpdateWebhookEndpoint)).model_dump(exclude_unset=True)
    if "url" in given:
        await _url(context, given["url"])

    def update(found: Stored) -> None:
        if any(getattr(found, name) != value for name, value in given.items()):
            for name, value in given.items():
                setattr(found, name, value)
            found.updated_at = int(time.time())

    return await _shown(request, await _changed(request, update))


async def delete_endpoint(request: web.Request) -> web.Response:
    named, owner = request.match_info["id"], principal_of(request).name
    # One that can't be read any more can still be deleted.
    if await context_of(request).store.deliveries.endpoint(owner, named) is None:
        raise _not_found(named)
    await context_of(request).store.deliveries.remove(owner, named)
    return json_answer(request, {"id": named, "object": "webhook_endpoint.deleted", "deleted": True})


async def rotate_secret(request: web.Request) -> web.Response:
    context, _ = context_of(request), await _named(request)
    keep = (await read_as(request, RotateSecret, optional=True)).keep_old_secret_active_for_24_hours
    secret = new_secret()

    def rotate(found: Stored) -> None:
        found.give_secret(context.sealer, secret, int(time.time()), keep_old=bool(keep))

    found = await _changed(request, rotate)
    health = await context.store.deliveries.health(principal_of(request).name, found.id)
    return json_answer(request, {**_object(found, health), "signing_secret": secret})


async def test_endpoint(request: web.Request) -> web.Response:
    """Send a sample event now, once, and tell what the endpoint answered."""
    context, found = context_of(request), await _named(request)
    kind = (await read_as(request, TestWebhookEndpoint)).event_type
    endpoint = found.endpoint(context.sealer, time.time())
    if endpoint is None:
        raise BadRequest("The signing secret of this endpoint can't be decrypted any more. Rotate it.")
    status, now_s = status_of(kind), int(time.time())
    sample = status_event(status, f"resp_{uuid4().hex}", now_s, model=None, metadata={})
    sample["id"] = f"evt_{uuid4().hex[:24]}"
    answer = await context.sender.send(endpoint, sample["id"], jsontext.dumps(sample).decode())
    if not answer.code:
        raise BadRequest(f"The test event could not be sent: {answer.reason}.", code="webhook_not_delivered")
    result = {"object": "webhook_endpoint.test", "webhook_endpoint_id": found.id, "event_type": kind}
    return json_answer(request, {**result, "success": True, "status_code": answer.code})


async def list_event_types(request: web.Request) -> web.Response:
    return json_answer(request, {"object": "list", "data": EVENT_TYPES})


async def list_deliveries(request: web.Request) -> web.Response:
    """Ours: the last deliveries, newest first."""
    found = await _named(request)
    past = await context_of(request).store.deliveries.past(principal_of(request).name, found.id)
    return json_answer(request, {"object": "list", "data": [_delivery(one) for one in past], "has_more": False})


async def redeliver(request: web.Request) -> web.Response:
    """Ours: send one of the last events once more."""
    found, owner = await _named(request), principal_of(request).name
    deliveries = context_of(request).store.deliveries
    wanted = (await read_as(request, RedeliverEvent)).event_id
    for past in await deliveries.past(owner, found.id):
        if event_of(past.status, past.response_id) == wanted and await deliveries.redeliver(owner, past.name):
            return json_answer(request, {**_delivery(past), "status": "pending", "attempts": 0})
    raise NotFound(f"This endpoint has no delivery of event '{shown(wanted)}' among its last ones.")


# The endpoint of one response.


async def take_own_webhook(request: web.Request, body: dict[str, Any], *, cached: bool) -> str:
    """Take `webhook: {url, secret}` out of the body of a create call: no provider gets it. As the store keeps it.

    Raises:
        BadRequest

    """
    given = body.pop("webhook", None)
    if given is None:
        return ""
    context, owner = context_of(request), _known_owner(request)
    if not context.config.pollux.webhook_per_request:
        raise BadRequest("Requests can't name webhooks here: pollux.webhook_per_request is off.", param="webhook")
    if not cached:
        raise BadRequest("A webhook can be named only for a background response that Pollux runs.", param="webhook")
    if not isinstance(given, dict):
        raise InvalidType("webhook", "an object", given)
    secret = given.get("secret")
    if secret is not None and not (isinstance(secret, str) and is_secret(secret)):
        wanted = "whsec_ and the base64 of 24 to 64 random bytes"
        raise InvalidValue(f"Invalid value for 'webhook.secret': expected {wanted}.", param="webhook.secret")
    url = await _url(context, given.get("url"), "webhook.url")
    return sealed_for_response(context.sealer, owner, url, secret)


def _known_owner(request: web.Request) -> str:
    """The owner. Anybody can be a guest: for one whom no provider has accepted yet, nothing is sent anywhere.

    Raises:
        Forbidden

    """
    principal = principal_of(request)
    if principal.is_guest:
        raise Forbidden("This API key is not configured here, so it can't have webhooks. Use GET /v1/events instead.")
    return principal.name


# Reading and showing.


async def _named(request: web.Request) -> Stored:
    found, _ = await _read(request)
    return found


async def _read(request: web.Request) -> tuple[Stored, bytes]:
    """The endpoint that the path names, and how it is stored."""
    named = request.match_info["id"]
    raw = await context_of(request).store.deliveries.endpoint(principal_of(request).name, named)
    found = None if raw is None else Stored.from_bytes(named, raw)
    if raw is None or found is None:
        raise _not_found(named)
    return found, raw


async def _changed(request: web.Request, change: Callable[[Stored], None]) -> Stored:
    """Change the endpoint that the path names, as it is now: others may change or delete it at the same time."""
    deliveries, owner = context_of(request).store.deliveries, principal_of(request).name
    while True:
        found, raw = await _read(request)
        change(found)
        if await deliveries.replace(owner, found.id, raw, found.as_bytes()):
            return found


def _not_found(named: str) -> NotFound:
    return NotFound(f"Webhook endpoint with id '{shown(named)}' not found.")


async def _url(context: Context, url: Any, param: str = "url") -> str:
    if url is None:
        raise MissingParameter(param)
    if not isinstance(url, str):
        raise InvalidType(param, "a string", url)
    try:
        await check_host(url, private=context.config.pollux.webhook_allow_private)
    except NotAllowed as error:
        raise InvalidValue(f"No webhook can be sent to this URL: {error}.", param=param) from None
    return url


async def _shown(request: web.Request, found: Stored) -> web.Response:
    health = await context_of(request).store.deliveries.health(principal_of(request).name, found.id)
    return json_answer(request, _object(found, health))


def _object(found: Stored, health: EndpointHealth) -> dict[str, Any]:
    """OpenAI's object; the last two keys are ours."""
    return {
        "id": found.id,
        "object": "webhook_endpoint",
        "created_at": found.created_at,
        "updated_at": found.updated_at,
        "name": found.name,
        "url": found.url,
        "event_types": found.event_types,
        "signing_secret_hint": found.hint,
        "status": "paused" if health.paused else "failing" if health.failures else "healthy",
        "last_failure": health.reason or None,
    }


def _delivery(past: Past) -> dict[str, Any]:
    kind = kind_of(past.status)
    return {
        "object": "webhook_delivery",
        "event_id": event_of(past.status, past.response_id),
        "event_type": kind,
        "response_id": past.response_id,
        "status": {"told": "delivered", "failed": "failed"}.get(past.outcome, "pending"),
        "attempts": past.attempts,
        "last_attempt_at": past.tried_ms // 1000 or None,
        "status_code": past.code or None,
        "latency_ms": past.latency_ms if past.tried_ms else None,
        "error": past.reason or None,
    }
