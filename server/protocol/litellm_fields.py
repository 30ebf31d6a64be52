"""Request fields that only LiteLLM knows. Pollux obeys some of them, and sends none of them to a provider.

LiteLLM removes them too before it calls a provider: its `all_litellm_params`, and what its router and proxy read. A
provider would refuse them, or see values that are not meant for it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from server.errors import InvalidType, InvalidValue

MOST_RETRIES = 10
LONGEST_TIMEOUT_S = 24 * 3600.0

_PREFIXES = ("litellm_", "_litellm_", "mock_", "langfuse_", "langsmith_", "user_api_key", "input_cost_", "output_cost_")
_NAMES = frozenset(
    {
        # Where and how to call.
        *("api_base", "base_url", "api_key", "api_version", "organization", "custom_llm_provider", "headers"),
        *("extra_headers", "extra_body", "extra_query", "provider_specific_header", "ssl_verify", "region_name"),
        *("deployment_id", "specific_deployment", "model_info", "model_list", "base_model", "allowed_model_region"),
        # Retries, time limits and fallbacks.
        *("num_retries", "max_retries", "retry_strategy", "retry_policy", "timeout", "request_timeout"),
        *("stream_timeout", "force_timeout", "cooldown_time", "fallbacks", "default_fallbacks", "max_fallbacks"),
        *("context_window_fallbacks", "context_window_fallback_dict", "content_policy_fallbacks", "disable_fallbacks"),
        *("fallback_depth", "routing_strategy", "enable_tag_filtering", "rpm", "tpm", "max_parallel_requests"),
        # How parameters are changed.
        *("drop_params", "additional_drop_params", "allowed_openai_params", "merge_reasoning_content_in_choices"),
        *("enable_json_schema_validation", "use_chat_completions_api", "use_litellm_proxy", "modify_params"),
        # For the proxy itself: caches, guards, logs, tags, budgets.
        *("cache", "caching", "cache_key", "no-cache", "no-store", "ttl", "namespace", "guardrails"),
        *("guardrail_config", "disable_global_guardrails", "policies", "tags", "no-log", "turn_off_message_logging"),
        *("proxy_server_request", "secret_fields", "max_budget", "budget_duration", "logger_fn", "verbose"),
        *("prompt_id", "prompt_variables", "prompt_label", "prompt_version", "metadata_from_request"),
    }
)


def is_litellms(name: str) -> bool:
    """Whether a field of a body is LiteLLM's own."""
    return name in _NAMES or name.startswith(_PREFIXES)


class Wishes(NamedTuple):
    """The settings that a request overrides through LiteLLM's fields; None: the configured value applies."""

    num_retries: int | None = None
    timeout_s: float | None = None
    """Limit for an answer that is not streamed, or for the beginning of a stream."""
    stream_timeout_s: float | None = None
    """Limit for the beginning of a stream."""


def wishes_in(body: dict[str, Any]) -> Wishes:
    """The wishes in a body.

    Raises:
        InvalidType, InvalidValue

    """
    # The fast path: hardly any body has one of these fields.
    if _HEEDED.isdisjoint(body):
        return NOTHING
    return Wishes(
        _retries(body, "num_retries", "max_retries"),
        _seconds(body, "timeout", "request_timeout"),
        _seconds(body, "stream_timeout"),
    )


NOTHING = Wishes()
_HEEDED = frozenset({"num_retries", "max_retries", "timeout", "request_timeout", "stream_timeout"})


def _retries(body: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if type(value) is not int:
            raise InvalidType(name, "an integer", value)
        if not 0 <= value <= MOST_RETRIES:
            raise InvalidValue(f"Invalid value for '{name}': expected 0 to {MOST_RETRIES}.", param=name)
        return value
    return None


def _seconds(body: dict[str, Any], *names: str) -> float | None:
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if type(value) not in (int, float):
            raise InvalidType(name, "a number of seconds", value)
        if not math.isfinite(value) or not 0 < value <= LONGEST_TIMEOUT_S:
            raise InvalidValue(f"Invalid value for '{name}': expected a number of seconds, above zero.", param=name)
        return float(value)
    return None
