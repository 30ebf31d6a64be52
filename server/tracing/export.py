"""The exporters that spans go to, and one line of the log when they begin to fail, instead of one for each batch.

A batch that could not be handed over is lost. The SDK holds at most OTEL_BSP_MAX_QUEUE_SIZE spans (2048), and drops
what comes beyond them, so a collector that is away costs neither memory nor time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from server.config.sections import ConfigError
from server.tracing.switch import Destination

log = logging.getLogger("pollux.tracing")

_TALKATIVE = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.trace")
"""Loggers that tell of each batch which could not be exported, of each span that was dropped, and of each client whose
`traceparent` or `tracestate` is malformed, whose words they quote."""


def exporters(destination: Destination) -> Iterator[SpanExporter]:
    """The exporters that the destination names.

    Raises:
        ConfigError: one is not installed, or can't be made of what the environment says

    """
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in destination.exporters:
        found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
        if found is None:
            raise ConfigError(
                f"tracing: there is no exporter {name}. Install {_package_of(name)}, or choose another one"
            )
        given: dict[str, Any] = {}
        if name.startswith("otlp"):
            given = {"endpoint": destination.endpoint, "headers": destination.headers}
        try:
            made = found.load()(**given)
        except (TypeError, ValueError, OSError) as error:
            raise ConfigError(f"tracing: the exporter {name} can't be made: {error}") from error
        yield Watched(made)


def _package_of(name: str) -> str:
    return f"opentelemetry-exporter-{name.replace('_', '-')}" if name.startswith("otlp") else "the package that has it"


class Watched(SpanExporter):
    """An exporter whose failures are told when they begin and when they end."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        """Spans since exports began to fail."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        why = ""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever an exporter raises, the next batch comes
            result, why = SpanExportResult.FAILURE, type(error).__name__
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("spans are exported again", extra={"lost": self._lost})
            self._lost = 0
        else:
            if not self._lost:
                log.warning("spans can't be exported, and are lost until they can", extra={"error": why or None})
            self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
