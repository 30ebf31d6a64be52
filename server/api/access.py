"""The access log: one line for each answer, when it is out. Without queries, bodies and keys."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from server.api.answered import pattern_of
from server.api.context import PRINCIPAL, REQUEST_ID, SPAN
from server.tracing import NO_SPAN

ACCESS_LOG = logging.getLogger("pollux.access")
UNMATCHED = "malformed"
"""The route of what was no valid HTTP, or found no room."""


class AccessLog(AbstractAccessLogger):
    """aiohttp tells it of each answer once its last byte is written, or its client gone."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        named = request.get(REQUEST_ID)
        fields = {
            "method": request.method,
            "route": pattern_of(request) if named and isinstance(request, web.Request) else UNMATCHED,
            "status": response.status,
            "seconds": round(time, 4),
            "bytes": response.body_length,
            "request_id": named or response.headers.get("X-Request-Id"),
        }
        if (principal := request.get(PRINCIPAL)) is not None:
            fields["owner"] = principal.name
        # The span of the request is over, and this is another task than its own.
        span = request.get(SPAN, NO_SPAN)
        if span.trace_id:
            fields["trace_id"], fields["span_id"] = span.trace_id, span.span_id
        self.logger.info("request answered", extra=fields)
