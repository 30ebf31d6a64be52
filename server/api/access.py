"""The access log: one line for each answer, when it is out, or was cut off. Without queries, bodies and keys.

Of probes and scrapes it tells only what goes wrong: there are more of them than of anything else.
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from server.api.context import PRINCIPAL, REQUEST_ID, SPAN, STATUS
from server.api.operation import requested_of
from server.api.routes.probes import PROBES
from server.tracing import NO_SPAN

ACCESS_LOG = logging.getLogger("pollux.access")
UNMATCHED = "malformed"
"""The route of what was no valid HTTP, or found no room."""


HUNG_UP = 499
"""What stands for the status where the client was gone before an answer began. It is nginx's."""
_PROBES = frozenset(row.path for row in PROBES)


class AccessLog(AbstractAccessLogger):
    """aiohttp tells it of each answer once its last byte is written; `Connection`, of those that are cut off."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        named = request.get(REQUEST_ID) or response.headers.get("X-Request-Id")
        self._tell(request, named, response.status, response.body_length, time)

    def log_cut(self, request: web.BaseRequest, time: float) -> None:
        """Tell of a request whose client has hung up, or was cut off, before all of its answer was out."""
        status = request.get(STATUS, HUNG_UP)
        self._tell(request, request.get(REQUEST_ID), status, request.writer.output_size, time, cut=True)

    def _tell(
        self,
        request: web.BaseRequest,
        named: str | None,
        status: int,
        size_bytes: int,
        time: float,
        **more: bool,
    ) -> None:
        route = _route_of(request)
        if route in _PROBES and status < 400:
            return
        fields = {
            "method": request.method,
            "route": route,
            "status": status,
            "seconds": round(time, 4),
            "bytes": size_bytes,
            "request_id": named,
            **more,
        }
        if (principal := request.get(PRINCIPAL)) is not None:
            fields["owner"] = principal.name
        # The span of the request is over, and this may be another task than its own.
        span = request.get(SPAN, NO_SPAN)
        if span.trace_id:
            fields["trace_id"], fields["span_id"] = span.trace_id, span.span_id
        self.logger.info("request answered", extra=fields)


def _route_of(request: web.BaseRequest) -> str:
    if REQUEST_ID in request and isinstance(request, web.Request):
        return requested_of(request).route
    return UNMATCHED
