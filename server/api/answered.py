"""Tells the metrics of each answer to a client, when it begins."""

from __future__ import annotations

from time import perf_counter

from aiohttp import web

from server.api.context import BEGAN, ERROR
from server.api.operation import requested_of
from server.metrics import Metrics


class Answers:
    """Counts answers. It is connected to the signal `on_response_prepare`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def count(self, request: web.Request, response: web.StreamResponse) -> None:
        route = requested_of(request).route
        began = request.get(BEGAN)
        seconds = 0.0 if began is None else perf_counter() - began
        self._metrics.request_answered(request.method, route, response.status, seconds)
        if error := request.get(ERROR):
            self._metrics.request_failed(route, error)
