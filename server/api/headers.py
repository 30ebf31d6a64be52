"""Which of a client's headers are sent to an upstream."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

from aiohttp import web

from server.api.context import context_of, principal_of

_TO_UPSTREAM = ("OpenAI-Beta", "X-Client-Request-Id", "traceparent", "tracestate")
"""The client's headers that are sent upstream in every mode. Its credentials never are."""

LONGEST_VALUE = 1024
"""In characters. Longer values are left out, because they would be stored with each record."""


def client_headers(request: web.Request) -> dict[str, str]:
    """The client's headers that an upstream gets. Values that can't be sent on, such as non-ASCII, are left out."""
    found = {}
    for name in _TO_UPSTREAM:
        if name in request.headers:
            value = ", ".join(request.headers.getall(name))
            if len(value) <= LONGEST_VALUE and value.isascii() and value.isprintable():
                found[name] = value
    return found


def forwarded_headers(request: web.Request) -> dict[str, str]:
    """The headers for a proxied or native call, which also carries the client's idempotency key."""
    found = client_headers(request)
    if key := request.headers.get("Idempotency-Key"):
        secret, owner = context_of(request).id_secrets[0], principal_of(request).name
        found["Idempotency-Key"] = idempotency_key(secret, owner, key)
    return found


def idempotency_key(secret: bytes, owner: str, key: str) -> str:
    """The idempotency key that the provider gets: a hash of the owner and the owner's key.

    All owners share the provider's account. If keys were sent unchanged, one owner's `req-1` would get the answer to
    another owner's `req-1`.
    """
    message = f"idempotency-key\0{owner}\0{key}".encode("utf-8", "surrogateescape")
    return urlsafe_b64encode(hmac.digest(secret, message, hashlib.sha256)).decode().rstrip("=")
