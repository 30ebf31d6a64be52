"""Whether requests are traced, and where their spans go: by the config, and by OpenTelemetry's own variables.

The variables of LiteLLM's callback `otel` (OTEL_EXPORTER, OTEL_ENDPOINT, OTEL_HEADERS) count where OpenTelemetry's own
say nothing, and only if the config has that callback.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from typing import NamedTuple

from server.config import Config
from server.config.sections import ConfigError, setting
from server.config.unused import has_otel
from server.tracing.port import UNTRACED, Tracing

log = logging.getLogger("pollux.tracing")

INSTALL = "OpenTelemetry is not installed: pip install 'pollux-responses[tracing]'"
SERVICE = "pollux"
_OTLP, _HTTP, _GRPC = "otlp", "http/protobuf", "grpc"
_PATH = "/v1/traces"
_LITELLMS = {"otlp_http": _HTTP, "http/json": _HTTP, "otlp_grpc": _GRPC}
"""LiteLLM's names of protocols."""
_EXPORTER_OF = {_HTTP: "otlp_proto_http", _GRPC: "otlp_proto_grpc"}


class Destination(NamedTuple):
    """Where spans go."""

    exporters: tuple[str, ...]
    """The names by which packages offer them to OpenTelemetry's SDK."""
    endpoint: str | None = None
    """The URL for OTLP; None: what the exporter finds in the environment."""
    headers: Mapping[str, str] | None = None
    """Further headers for OTLP, such as a key; None: as above."""
    service: str | None = None
    """The name of this service; None: the environment has it."""


def tracing_by(config: Config, environ: Mapping[str, str] = os.environ) -> Tracing:
    """What a process is traced by. Without the extra it is not: that is an error if the config says `tracing: true`.

    Raises:
        ConfigError

    """
    destination = destination_in(config, environ)
    if destination is None:
        return UNTRACED
    try:
        made: Tracing = importlib.import_module("server.tracing.spans").Recording(destination)
    except ImportError as error:
        if config.pollux.tracing:
            raise ConfigError(f"pollux.tracing: {INSTALL}") from error
        log.warning("nothing is traced, although the environment or the config asks for it. %s", INSTALL)
        return UNTRACED
    log.info("tracing", extra={"exporters": ", ".join(destination.exporters), "endpoint": endpoint_of(destination)})
    return made


def endpoint_of(destination: Destination, environ: Mapping[str, str] = os.environ) -> str | None:
    """The collector's address as people are shown it, without what may be a login in it."""
    named = destination.endpoint or setting(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    named = named or setting(environ, "OTEL_EXPORTER_OTLP_ENDPOINT")
    if named is None or "@" not in named:
        return named
    scheme, found, rest = named.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


def destination_in(config: Config, environ: Mapping[str, str]) -> Destination | None:
    """Where spans go; None if there are to be none."""
    asked = config.pollux.tracing
    if asked is None:
        asked = has_otel(config.litellm_settings) or any(setting(environ, name) for name in _SWITCHES)
    if not asked or (setting(environ, "OTEL_SDK_DISABLED") or "").lower() == "true":
        return None
    litellms = environ if has_otel(config.litellm_settings) else {}
    names = setting(environ, "OTEL_TRACES_EXPORTER") or _exporter_for_litellm(litellms)
    protocol = (
        setting(environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or setting(environ, "OTEL_EXPORTER_OTLP_PROTOCOL")
        or _protocol_for_litellm(litellms)
    )
    exporters = [
        _EXPORTER_OF.get(protocol, protocol) if name == _OTLP else name for name in map(str.strip, names.split(","))
    ]
    if "none" in exporters:
        return None
    has_own = any(setting(environ, name) for name in _ENDPOINTS)
    return Destination(
        tuple(exporters),
        None if has_own else _endpoint_for_litellm(litellms, protocol),
        _headers_for_litellm(litellms, environ),
        None if _names_service(environ) else SERVICE,
    )


_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SWITCHES = (*_ENDPOINTS, "OTEL_TRACES_EXPORTER")


def _names_service(environ: Mapping[str, str]) -> bool:
    return bool(setting(environ, "OTEL_SERVICE_NAME")) or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _exporter_for_litellm(environ: Mapping[str, str]) -> str:
    return "console" if setting(environ, "OTEL_EXPORTER") == "console" else _OTLP


def _protocol_for_litellm(environ: Mapping[str, str]) -> str:
    named = setting(environ, "OTEL_EXPORTER") or _HTTP
    found = _LITELLMS.get(named, named)
    return found if found in _EXPORTER_OF else _HTTP


def _endpoint_for_litellm(environ: Mapping[str, str], protocol: str) -> str | None:
    """The address as LiteLLM completes it."""
    named = (setting(environ, "OTEL_ENDPOINT") or "").rstrip("/")
    if not named or protocol == _GRPC or named.endswith(_PATH):
        return named or None
    return named.removesuffix("/v1") + _PATH


def _headers_for_litellm(environ: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str] | None:
    named = setting(environ, "OTEL_HEADERS")
    if not named or any(setting(own, f"OTEL_EXPORTER_OTLP_{infix}HEADERS") for infix in ("TRACES_", "")):
        return None
    pairs = (pair.partition("=") for pair in named.split(","))
    return {name.strip().lower(): value.strip() for name, found, value in pairs if found}
