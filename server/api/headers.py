"""Headers on their way through: what an upstream gets of a client's, and a client of an upstream's."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

from aiohttp import web

from server.api.context import context_of, principal_of

_TO_UPSTREAM = ("OpenAI-Beta", "X-Client-Request-Id", "traceparent", "tracestate")
"""What goes upstream of a client's headers, in every mode. Its credentials never do."""

LONGEST_VALUE = 1024
"""Characters. What is longer is left out: it would be kept with each record."""


def client_headers(request: web.Request) -> dict[str, str]:
    """The headers of a client that an upstream gets. Of what could not be sent on (it is no ASCII, say), nothing."""
    found = {}
    for name in _TO_UPSTREAM:
        if name in request.headers:
            value = ", ".join(request.headers.getall(name))
            if len(value) <= LONGEST_VALUE and value.isascii() and value.isprintable():
                found[name] = value
    return found


def forwarded_headers(request: web.Request) -> dict[str, str]:
    """The same for a call that is a client's own, proxied or native."""
    found = client_headers(request)
    if key := request.headers.get("Idempotency-Key"):
        secret, owner = context_of(request).id_secrets[0], principal_of(request).name
        found["Idempotency-Key"] = idempotency_key(secret, owner, key)
    return found


def idempotency_key(secret: bytes, owner: str, key: str) -> str:
    """What a provider gets of an owner's key: the same for the same, and of no use to anybody else.

    All owners share the provider's account: sent as it is, one owner's `req-1` would get the answer to another's.
    """
    message = f"idempotency-key\0{owner}\0{key}".encode("utf-8", "surrogateescape")
    return urlsafe_b64encode(hmac.digest(secret, message, hashlib.sha256)).decode().rstrip("=")
