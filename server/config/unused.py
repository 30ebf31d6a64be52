"""LiteLLM's keys of the config that have no effect here: those of its database, user interface, callbacks and so on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from server.config.sections import LiteLLMParams, LiteLLMSettings
from server.protocol.defaults import may_be_default

_READ_ELSEWHERE = {"rpm", "tpm", "input_cost_per_token", "output_cost_per_token", "request_timeout", "cooldown_time"}
"""What `server.upstream.deployments` reads from several places."""

_GUARDS = frozenset(
    {
        *("allowed_ips", "allowed_routes", "admin_only_routes", "public_routes", "blocked_user_list"),
        *("banned_keywords_list", "custom_auth", "custom_auth_settings", "custom_sso", "enable_jwt_auth"),
        *("litellm_jwtauth", "enable_oauth2_auth", "enable_oauth2_proxy_auth", "oauth2_config_mappings"),
        *("role_permissions", "enforced_params", "enforce_user_param", "guardrails", "policies", "policy_attachments"),
        *("budget_duration", "max_budget", "max_user_budget", "max_internal_user_budget", "provider_budget_config"),
        *("global_max_parallel_requests", "max_request_size_mb", "max_response_size_mb", "trusted_proxy_ranges"),
        *("upperbound_key_generate_params", "user_url_validation", "dynamic_rate_limiting"),
    }
)
"""Keys that keep somebody out, or something in. Who sets them relies on them."""
_INDEX = re.compile(r"\.\d+(?=\.)")


_CALLBACKS = ("callbacks", "success_callback", "failure_callback")
_OTEL = "otel"
"""The one callback of LiteLLM's that has an effect here, see `server.tracing`."""


def has_otel(settings: LiteLLMSettings) -> bool:
    """Whether LiteLLM's callback of OpenTelemetry is on."""
    found = settings.model_extra or {}
    return any(_OTEL in _named_in(found.get(name)) for name in _CALLBACKS)


def _named_in(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def keys_without_effect(section: BaseModel, path: str = "") -> Iterator[str]:
    """The dotted paths of these keys."""
    holds_defaults = isinstance(section, LiteLLMParams)
    for name, value in (section.model_extra or {}).items():
        if name in _CALLBACKS and _named_in(value) == [_OTEL]:
            continue
        if name not in _READ_ELSEWHERE and not (holds_defaults and may_be_default(name)):
            yield f"{path}{name}"
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from keys_without_effect(value, f"{path}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from keys_without_effect(item, f"{path}{name}.{index}.")


def told_in_one(config: BaseModel) -> str | None:
    """One warning that names all of them, each once, and says of which somebody may expect protection."""
    found = sorted({_INDEX.sub(".*", path) for path in keys_without_effect(config)})
    if not found:
        return None
    text = f"these keys of the config are LiteLLM's and have no effect here: {', '.join(found)}"
    guards = [path for path in found if path.rpartition(".")[2] in _GUARDS]
    return f"{text}. Nothing is guarded by {', '.join(guards)}" if guards else text
