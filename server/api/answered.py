"""Tells the metrics of each answer to a client, when it begins."""

from __future__ import annotations

import re
from time import perf_counter

from aiohttp import web

from server.api.context import BEGAN, ERROR
from server.api.routes import OPERATIONS, PREFIXES, ROUTES
from server.metrics import Metrics

NONE = "none"
"""The route of what no route fits."""
_PATTERN = re.compile(r":[^}]*")
_NAMED = {
    path: name
    for prefix, table in [*((prefix, ROUTES) for prefix in PREFIXES), ("", OPERATIONS)]
    for _, name, _ in table
    for path in (prefix + name, f"{prefix}{name}/")
}
_ROUTES = {_PATTERN.sub("", path): _PATTERN.sub("", name) for path, name in _NAMED.items()}
"""The name of each route, by what aiohttp calls it: all prefixes, and the slash at the end, are one."""


def pattern_of(request: web.Request) -> str:
    """The route of a request: a pattern, never what the client wrote."""
    resource = request.match_info.route.resource
    return _ROUTES.get(resource.canonical, NONE) if resource else NONE


class Answers:
    """Counts answers. It is connected to the signal `on_response_prepare`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def count(self, request: web.Request, response: web.StreamResponse) -> None:
        route = pattern_of(request)
        began = request.get(BEGAN)
        seconds = 0.0 if began is None else perf_counter() - began
        self._metrics.request_answered(request.method, route, response.status, seconds)
        if error := request.get(ERROR):
            self._metrics.request_failed(route, error)
