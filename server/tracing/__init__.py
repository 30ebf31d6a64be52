"""The way of one request through all processes, told in spans. Whoever tells knows `Tracing` alone, no OpenTelemetry.

The context of a trace travels in the headers of W3C's Trace Context: from the client, with the job in the store (among
the client's headers, where every version of Pollux keeps and forwards them), to the provider, and with each webhook. So
a run on any replica, however often it is repeated, belongs to the trace of the request that created its response.
"""

from server.tracing.port import NO_SPAN, UNTRACED, Call, Span, Tracing, current_span
from server.tracing.switch import destination_in, endpoint_of, tracing_by

__all__ = [
    "NO_SPAN",
    "UNTRACED",
    "Call",
    "Span",
    "Tracing",
    "current_span",
    "destination_in",
    "endpoint_of",
    "tracing_by",
]
