"""By which headers the context of a trace comes in and goes out: those of OTEL_PROPAGATORS, W3C's by default.

Baggage is never taken over: a client's own words would reach providers, and whoever else is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import entry_points

from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.config.sections import ConfigError, setting

VARIABLE = "OTEL_PROPAGATORS"
W3C = TraceContextTextMapPropagator()
_BAGGAGE, _NONE = "baggage", "none"


def propagator_in(environ: Mapping[str, str] = os.environ) -> TextMapPropagator:
    """The propagators that the environment names.

    Raises:
        ConfigError: one is not installed

    """
    named = [name.strip() for name in (setting(environ, VARIABLE) or "tracecontext").split(",")]
    if _NONE in named:
        return CompositePropagator([])
    return CompositePropagator([_loaded(name) for name in dict.fromkeys(named) if name != _BAGGAGE])


def _loaded(name: str) -> TextMapPropagator:
    found = next(iter(entry_points(group="opentelemetry_propagator", name=name)), None)
    if found is None:
        raise ConfigError(f"{VARIABLE}: there is no propagator {name}. Install opentelemetry-propagator-{name}")
    made: TextMapPropagator = found.load()()
    return made
