"""Tracing by OpenTelemetry. Only `switch` imports this module, where tracing is on and the extra `tracing` is there.

The environment says what OpenTelemetry's SDK reads from it: OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*
and the limits of spans. Nothing is registered globally, so several applications in one process don't mix.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from server import __version__
from server.system.daemon import in_daemon
from server.tracing.attributes import error_type, generating, of_address, of_call, of_job, of_request, of_response
from server.tracing.export import exporters
from server.tracing.port import Call, Span, Tracing, Value, current_span, set_current
from server.tracing.propagation import W3C, propagator_in
from server.tracing.switch import Destination

log = logging.getLogger("pollux.tracing")

CLOSED_WITHIN_S = 3.0
"""How long the end of a process waits for the collector. Spans that it has not taken by then are lost."""


class RecordedSpan(Span):
    """A span of OpenTelemetry's. It records only if its trace is sampled; its context is passed on in any case."""

    def __init__(self, span: trace.Span, propagator: TextMapPropagator) -> None:
        self._span = span
        self._propagator = propagator
        context = span.get_span_context()
        self.trace_id, self.span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        self.sampled = context.trace_flags.sampled
        self._failed = False

    @property
    def context(self) -> Context:
        """The context of what is done within this span: the span alone, never a client's baggage."""
        return set_span_in_context(self._span, Context())

    def note(self, **attributes: Value) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"pollux.{name}", value)

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)

    def failed(self, kind: str) -> None:
        if not self._failed:
            self._failed = True
            self._span.set_attribute("error.type", error_type(kind))
            # Without a description: the texts of errors may quote what a client or a provider wrote.
            self._span.set_status(StatusCode.ERROR)

    def began_to_answer(self, after_s: float) -> None:
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", after_s)

    def produced(self, response: Mapping[str, Any]) -> None:
        if self.sampled:
            for name, value in of_response(response):
                self._span.set_attribute(name, value)

    def carried_by(self, headers: Mapping[str, str] | None) -> Mapping[str, str]:
        carrier = _without_context(headers or {})
        self._propagator.inject(carrier, self.context)
        return carrier

    def kept_in(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        carrier = _without_context(headers)
        W3C.inject(carrier, self.context)
        return carrier


def _without_context(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in W3C.fields}


class Recording(Tracing):
    """Makes spans, and hands them to the exporters in batches, in a thread of OpenTelemetry's."""

    on = True

    def __init__(self, destination: Destination) -> None:
        """Raises `ConfigError` where the environment names what is not installed."""
        self._propagator = propagator_in()
        self._provider = TracerProvider(
            resource=_resource(destination.service),
            # The SDK would wait for a collector that does not answer for half a minute, see `close`.
            shutdown_on_exit=False,
        )
        for exporter in exporters(destination):
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("pollux", __version__)

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: Mapping[str, Value], parent: Context | None = None
    ) -> Iterator[Span]:
        """A span below `parent`, else below the current one."""
        below = _current_context() if parent is None else parent
        made = RecordedSpan(self._tracer.start_span(name, below, kind, attributes), self._propagator)
        before = set_current(made)
        try:
            yield made
        except BaseException as error:
            made.failed("cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else _kind_of(error))
            raise
        finally:
            # Not by the token of the variable, which another task that closes a generator could not use.
            set_current(before)
            made._span.end()  # noqa: SLF001 - it was made above

    def answering(self, method: str, route: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        attributes = of_request(method, route)
        # Only the span's context is taken over. What else a propagator may bring, such as baggage, goes no further.
        found = trace.get_current_span(self._propagator.extract(headers, Context()))
        parent = set_span_in_context(found, Context())
        return self._span(f"{attributes['http.request.method']} {route}", SpanKind.SERVER, attributes, parent)

    def queueing(self, model: str, owner: str) -> AbstractContextManager[Span]:
        return self._span("create jobs", SpanKind.PRODUCER, of_job("create", "send", model, owner))

    def running(
        self, response_id: str, model: str, owner: str, attempt: int, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        attributes = of_job("run", "process", model, owner, attempt=attempt)
        attributes["messaging.message.id"] = response_id
        return self._span("run jobs", SpanKind.CONSUMER, attributes, W3C.extract(headers, Context()))

    def calling(self, call: Call) -> AbstractContextManager[Span]:
        return self._span(f"{generating(call) or call.operation} {call.model}", SpanKind.CLIENT, of_call(call))

    def delivering(
        self, event: str, response_id: str, attempt: int, url: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        attributes = {
            "http.request.method": "POST",
            "messaging.message.id": response_id,
            "pollux.event": event,
            "pollux.attempt": attempt,
            **of_address(url),
        }
        return self._span("POST webhook", SpanKind.CLIENT, attributes, W3C.extract(headers, Context()))

    async def close(self) -> None:
        try:
            # A collector that does not answer can't keep the process from ending.
            await in_daemon(self._provider.shutdown, "last spans", CLOSED_WITHIN_S)
        except TimeoutError:
            log.warning("the collector did not take the last spans within %g s", CLOSED_WITHIN_S)


def _current_context() -> Context:
    current = current_span()
    return current.context if isinstance(current, RecordedSpan) else Context()


def _kind_of(error: BaseException) -> str:
    return str(getattr(error, "code", None) or type(error).__name__)


def _resource(service: str | None) -> Resource:
    """What all spans of this process have in common. OTEL_RESOURCE_ATTRIBUTES overrule what is said here."""
    ours = Resource({"service.version": __version__, "service.instance.id": str(uuid4())})
    return ours.merge(Resource.create({} if service is None else {"service.name": service}))
