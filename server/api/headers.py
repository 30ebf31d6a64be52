"""Headers on their way through: what an upstream gets of a client's, and a client of an upstream's."""

from __future__ import annotations

from aiohttp import web

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
        found["Idempotency-Key"] = key
    return found
