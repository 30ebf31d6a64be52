"""Health and metrics, at the paths that orchestrators know; LiteLLM's answer the same."""

from __future__ import annotations

from server.api.health import livez, readyz
from server.api.metrics import show_metrics
from server.api.operation import Auth, Operation, Tag


def _alive(path: str, name: str = "") -> Operation:
    return Operation(
        method="GET",
        path=path,
        handler=livez,
        name=name,
        summary="Tell whether the process answers",
        tag=Tag.OPERATING,
        auth=Auth.NONE,
        details="The store is not asked: a restart of Pollux would not repair it.",
        answer="Health",
        ours=True,
    )


def _ready(path: str, name: str = "") -> Operation:
    return Operation(
        method="GET",
        path=path,
        handler=readyz,
        name=name,
        summary="Tell whether the process takes new work",
        tag=Tag.OPERATING,
        auth=Auth.NONE,
        details="It has not been told to end, and its store answers; otherwise this is 503.",
        answer="Health",
        ours=True,
    )


METRICS = Operation(
    method="GET",
    path="/metrics",
    handler=show_metrics,
    summary="Show the metrics of all processes of this replica",
    tag=Tag.OPERATING,
    auth=Auth.SCRAPER,
    details="In Prometheus's format, as text or in OpenMetrics by `Accept`.",
    media=("text/plain", "application/openmetrics-text"),
    ours=True,
)

PROBES = (
    _alive("/livez"),
    _ready("/readyz"),
    METRICS,
    _alive("/health/liveliness", "health_liveliness"),
    _alive("/health/liveness", "health_liveness"),
    _ready("/health/readiness", "health_readiness"),
)
