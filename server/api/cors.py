"""Cross-origin requests: which web pages may call Pollux from a browser (the Fetch standard, section 3.3).

Off unless `cors_origins` names origins. Cookies are never accepted as credentials: the API key comes in a header.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

ANY = "*"
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
EXPOSED = (
    "ETag, Preference-Applied, Retry-After, X-Request-Id, openai-poll-after-ms, openai-processing-ms, retry-after-ms, "
    "x-litellm-attempted-fallbacks, x-litellm-model-group, x-litellm-model-id, "
    "x-upstream-request-id, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens"
)
"""The answer headers that a page may read, beyond those that browsers always expose."""
PREFLIGHT_AGE_S = 600
LONGEST_REQUESTED_HEADERS = 2048


class Cors:
    """The cross-origin headers for the origins of one config."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.rstrip("/") for origin in origins)

    def stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put the headers on an answer, errors and streams included."""
        if not self._origins:
            return
        headers, origin = response.headers, request.headers.get("Origin")
        if ANY not in self._origins:
            headers.add("Vary", "Origin")
        if origin is None or not self._origins & {ANY, origin}:
            return
        headers["Access-Control-Allow-Origin"] = ANY if ANY in self._origins else origin
        headers["Access-Control-Expose-Headers"] = EXPOSED
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            headers["Access-Control-Allow-Methods"] = METHODS
            headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
            if asked := request.headers.get("Access-Control-Request-Headers"):
                headers["Access-Control-Allow-Headers"] = asked[:LONGEST_REQUESTED_HEADERS]
