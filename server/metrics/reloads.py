"""Counts reloads of the config: by the process that reads it, which of several processes is their parent."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge

from server.metrics import families
from server.metrics.files import Shared, keep_values


class ReloadCounts:
    """The metrics about reloads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        count, last, at = families.RELOADS, families.RELOADED, families.RELOADED_AT
        self._reloads = Counter(count.name, count.help, count.labels, registry=registry)
        self._successful = Gauge(last.name, last.help, registry=registry, multiprocess_mode="mostrecent")
        self._applied_at = Gauge(at.name, at.help, registry=registry, multiprocess_mode="mostrecent")
        for outcome in ("applied", "refused"):
            self._reloads.labels(outcome)
        self._successful.set(1)
        self._applied_at.set(time.time())

    @classmethod
    def of_parent(cls, directory: str | None) -> ReloadCounts:
        """Those of a parent, whose children show them. `directory` is where they share their metrics, if they do."""
        keep_values(Shared(directory, 0) if directory else None)
        return cls(CollectorRegistry())

    def config_reloaded(self, *, applied: bool) -> None:
        self._reloads.labels("applied" if applied else "refused").inc()
        self._successful.set(float(applied))
        if applied:
            self._applied_at.set(time.time())
