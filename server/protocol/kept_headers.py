"""The client's headers that are kept with a job: they go to its provider, and hold the context of its trace."""

from __future__ import annotations

from collections.abc import Mapping

from server.protocol import jsontext

TRACE_CONTEXT = ("traceparent", "tracestate")
"""The headers by which a trace goes on elsewhere, as W3C's Trace Context names them."""


def kept_headers(stored: bytes) -> dict[str, str]:
    """The headers as the store has them; none if somebody has broken them by hand."""
    try:
        found = jsontext.loads(stored) if stored else None
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def trace_context(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of the headers that hold the context of a trace."""
    return {name: headers[name] for name in TRACE_CONTEXT if name in headers}
