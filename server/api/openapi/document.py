"""The whole document. See the OpenAPI Specification 3.1.1."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from server import __version__
from server.api.openapi.errors import errors_of
from server.api.openapi.headers import headers, refer
from server.api.openapi.links import links_of
from server.api.openapi.samples import BODIES, PROGRAMS
from server.api.openapi.schemas import PLACE, schemas
from server.api.openapi.words import DESCRIPTION, TAGS, TITLE
from server.api.operation import Auth, Operation, Parameter, plain
from server.api.routes.table import PREFIXES, ROUTES, UNPREFIXED

EXTENSION = {"x-pollux-extension": True}

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the config."},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key", "description": "As Azure's SDK sends it."},
    "x-litellm-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-litellm-api-key",
        "description": "As clients of LiteLLM's proxy may send it.",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As Anthropic's SDK sends it."},
}
_WHO = {
    Auth.KEY: "",
    Auth.NONE: "",
    Auth.MASTER: "For the master key alone.",
    Auth.SCRAPER: "For the master key or the `metrics_key`.",
}
_ENDS = ("Completed", "Failed", "Incomplete", "Cancelled")


def as_json() -> bytes:
    """The document, always the same for one version of Pollux."""
    return orjson.dumps(document())


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for prefix, table in ((PREFIXES[0], ROUTES), ("", UNPREFIXED)):
        for operation in table:
            paths.setdefault(prefix + plain(operation.path), {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": TITLE,
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Relative to where the document is, so that it also fits behind a proxy that adds a prefix.
        "servers": [{"url": ".", "description": "Where this document comes from."}],
        "tags": [{"name": tag, "description": told} for tag, told in TAGS.items()],
        "paths": paths,
        "webhooks": {f"response.{end.lower()}": _webhook(end) for end in _ENDS},
        "components": {"schemas": schemas(), "headers": headers(), "securitySchemes": _SECURITY},
    }


def _described(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": " ".join(filter(None, (operation.details, _WHO[operation.auth]))),
        "tags": [operation.tag],
        "security": [] if operation.auth is Auth.NONE else [{scheme: []} for scheme in _SECURITY],
        "parameters": [*_of_path(operation.path), *map(_parameter, operation.parameters)],
        "responses": {**_successes(operation), **errors_of(operation)},
    }
    if operation.body:
        found["requestBody"] = _body(operation)
    if operation.ours:
        found |= EXTENSION
    if operation.id in PROGRAMS:
        found["x-codeSamples"] = PROGRAMS[operation.id]
    return {name: part for name, part in found.items() if part not in ("", None) and (part or name == "security")}


_VARIABLE = re.compile(r"\{(\w+)")


def _of_path(path: str) -> Iterable[dict[str, Any]]:
    for name in _VARIABLE.findall(path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    made = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.meaning,
        "schema": dict(parameter.schema),
    }
    return {**made, **EXTENSION} if parameter.ours else made


def _body(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": PLACE.format(model=operation.body)}}
    if operation.body in BODIES:
        content["examples"] = BODIES[operation.body]
    return {"required": not operation.body_optional, "content": {"application/json": content}}


def _successes(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer:
        content["application/json"] = {"schema": {"$ref": PLACE.format(model=operation.answer)}}
    if operation.events:
        content["text/event-stream"] = {"schema": _frame(operation.events)}
    for media in operation.media:
        content[media] = {"schema": {"type": "string"}}
    shared = refer("X-Request-Id", *operation.headers)
    found: dict[str, dict[str, Any]] = {
        "200": {"description": f"{operation.summary}: done.", "headers": shared, "content": content}
    }
    if links := links_of(operation.id):
        found["200"]["links"] = links
    if operation.conditional:
        found["304"] = {"description": "The client has this state already.", "headers": shared}
    if operation.redirects:
        found["308"] = {
            "description": "The same with a slash at the end.",
            "headers": refer("X-Request-Id", "Location"),
        }
    return found


def _frame(model: str) -> dict[str, Any]:
    """One event, in the form that OpenAPI 3.2 has for it; 3.1 has none of its own."""
    data = {"contentMediaType": "application/json", "contentSchema": {"$ref": PLACE.format(model=model)}}
    return {
        "type": "object",
        "description": "One event of the stream.",
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "description": "The `type` of the data."},
            "data": {"type": "string", "description": "One line of JSON.", **data},
            **({"id": {"type": "string", "description": "The cursor."}} if model == "StatusEvent" else {}),
        },
    }


def _webhook(end: str) -> dict[str, Any]:
    schema = {"$ref": PLACE.format(model=f"WebhookResponse{end}")}
    told = {
        "webhook-id": "The id of the event, the same in every attempt.",
        "webhook-timestamp": "When this attempt was made, in seconds of Unix's time.",
        "webhook-signature": "`v1,` and a base64 HMAC-SHA256 of id, timestamp and body with dots in between; several, "
        "with spaces in between, while a secret is replaced.",
    }
    return {
        "post": {
            "summary": f"A background response is {end.lower()}"
            if end != "Failed"
            else "A background response has failed",
            "description": "Sent by the Standard Webhooks scheme until it is taken, for up to three days.",
            "tags": ["Webhooks"],
            "security": [],
            "parameters": [
                {"name": name, "in": "header", "required": True, "description": about, "schema": {"type": "string"}}
                for name, about in told.items()
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {"2XX": {"description": "It is taken. Any other answer is followed by another attempt."}},
        }
    }
