"""Defaults of a deployment: fields that a request gets where its client says nothing.

In LiteLLM's config, `litellm_params` may hold any field of a request beside the deployment's own settings. Most people
name them as in Chat Completions. Here they are kept under the names of the Responses API, where it has the same thing;
what only Chat Completions or Messages have (`stop`, `seed`, `thinking`) keeps its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any

import orjson

from server.protocol.litellm_fields import is_litellms

NO_DEFAULTS: Mapping[str, Any] = MappingProxyType({})

RESPONSES_FIELDS = frozenset(
    {
        *("context_management", "include", "instructions", "max_output_tokens", "max_tool_calls", "moderation"),
        *("parallel_tool_calls", "partial_images", "prompt", "prompt_cache_key", "prompt_cache_options"),
        *("prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "temperature", "text"),
        *("tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    }
)
"""The fields of the Responses API that may have a default."""

OTHER_NAMES = {
    "max_tokens": ("max_output_tokens",),
    "max_completion_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning", "effort"),
    "response_format": ("text", "format"),
    "verbosity": ("text", "verbosity"),
}
"""Names of Chat Completions, and where the Responses API has the same. Of two for one thing the later one counts."""

_NESTED = ("reasoning", "text")
"""Fields that are filled key by key."""

_ONLY_THE_CLIENTS = frozenset(
    {
        *("background", "background_options", "conversation", "input", "messages", "model", "previous_response_id"),
        # How an answer is transported is decided by the client and by Pollux.
        *("stream", "stream_options", "webhook"),
        # LiteLLM's metadata of a deployment are for its logs.
        "metadata",
    }
)
"""Fields without a default: they say what is asked, or were acted on before a deployment was chosen."""

_SETTINGS = frozenset(
    {
        *("weight", "order", "itpm", "otpm", "rpd", "tpd", "daily_reset_time", "tag_regex", "silent_model"),
        *("timeout_by_service_tier", "stream_timeout_by_service_tier", "responses_api_version", "client"),
        *("shared_session", "default_headers", "configurable_clientside_auth_params", "provider_affinity_header"),
        *("tenant_id", "client_id", "bucket_name", "index_name", "embedding_model", "vector_store_id", "dataSources"),
        *("allow_legacy_cloud_file_ids", "azure", "use_in_pass_through", "use_xai_oauth", "chatgpt_auth_file"),
        *("fireworks_forward_user_id", "kubernetes_pod_discovery", "fastest_response", "search_tool_name", "id"),
        *("enable_prompt_caching", "caching_groups", "max_agentic_loops", "max_file_size_mb", "tiered_pricing"),
        *("prompt_environment", "custom_prompt_dict", "initial_prompt_value", "final_prompt_value", "roles"),
        *("bos_token", "eos_token", "hf_model_name", "supports_system_message", "ensure_alternating_roles"),
        *("user_continue_message", "assistant_continue_message", "disable_add_transform_inline_image_block"),
        *("thought_signature_in_tool_call_id", "complete_response", "keepalive_seconds", "stream_chunk_size"),
        *("allow_client_keepalive_override", "output_vector_size", "preset_cache_key", "model_config", "rust"),
    }
)
_SETTINGS_OF = re.compile(
    r"(aws|azure|vertex|watsonx|s3|gcs|bedrock|milvus|valkey|vector|github_copilot|token_exchange|default_api_key"
    r"|auto_router|complexity_router|adaptive_router|quality_router|switchyard_router|oci|sap|databricks|snowflake"
    r"|anthropic_(federation|organization|service|identity|issuer|keycloak|disable)|openai_(identity|service)"
    r"|humanloop|arize|posthog|wandb|weave|dd|newrelic|signoz)_"
    r"|.*(^|_)cost(_|$)|.*_uplift_multiplier"
)
"""LiteLLM's settings of platforms, routers, logs and prices."""
_SECRET = re.compile(r".*(key|secret|token|password|credentials?)$", re.IGNORECASE)


def may_be_default(name: str) -> bool:
    """Whether a parameter of a deployment is a default of its requests, and not a setting of LiteLLM's.

    A name that nobody knows is a field of the provider's own, unless it looks like a secret.
    """
    if name in RESPONSES_FIELDS:
        return True
    if name in _ONLY_THE_CLIENTS or name in _SETTINGS or is_litellms(name):
        return False
    return not (name.startswith("_") or _SETTINGS_OF.match(name) or _SECRET.match(name))


def defaults_in(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The defaults among the parameters of a deployment, as the Responses API names them.

    Raises:
        ValueError: one has a value that JSON has not

    """
    found: dict[str, Any] = {}
    given = {name: as_json(name, value) for name, value in params.items() if value is not None and may_be_default(name)}
    for name, place in OTHER_NAMES.items():
        if name in given:
            _put(found, place, _translated(name, given.pop(name)))
    for name, value in given.items():
        known = found.get(name)
        found[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    if isinstance(tools := found.get("tools"), list):
        found["tools"] = [_flat(tool) for tool in tools]
    if "tool_choice" in found:
        found["tool_choice"] = _flat_choice(found["tool_choice"])
    return MappingProxyType(found) if found else NO_DEFAULTS


def as_json(name: str, value: Any) -> Any:
    """A value of a YAML file as JSON would have it: its keys are strings, and so are its dates.

    Raises:
        ValueError: JSON has no such value

    """
    try:
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    except TypeError as error:
        raise ValueError(f"{name} can't be written as JSON: {error}") from None


def of_responses(defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those that the Responses API knows: a provider that speaks it would refuse the others."""
    if defaults.keys() <= RESPONSES_FIELDS:
        return defaults
    return MappingProxyType({name: value for name, value in defaults.items() if name in RESPONSES_FIELDS})


def with_defaults(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The body with defaults for what the client left out or gave as null. The client's own wins.

    Tools are added to the client's instead, before them, as LiteLLM does. So fill a body once.
    """
    filled = dict(body)
    said = {place for name, place in OTHER_NAMES.items() if body.get(name) is not None}
    for name, default in defaults.items():
        given = body.get(name)
        if name == "tools" and isinstance(given, list) and isinstance(default, list):
            filled[name] = [*deepcopy(default), *given]
        elif name in _NESTED and isinstance(default, dict) and isinstance(given, dict | None):
            missing = {
                key: deepcopy(value)
                for key, value in default.items()
                if (name, key) not in said and (given or {}).get(key) is None
            }
            if missing:
                filled[name] = {**(given or {}), **missing}
        elif given is None and (name,) not in said:
            filled[name] = deepcopy(default)
    return filled


def _put(found: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """Put a value at its place. Several keys of one field come together; a mapping may be the whole field."""
    if value is None:
        return
    if len(place) == 1:
        found[place[0]] = value
        return
    field, key = place
    more = value if key == "effort" and isinstance(value, dict) else {key: value}
    found[field] = {**found.get(field, {}), **more}


def _translated(name: str, value: Any) -> Any:
    if name != "response_format":
        return value
    if not isinstance(value, dict):
        return None
    schema = value.get("json_schema")
    return {"type": value.get("type"), **schema} if isinstance(schema, dict) else value


def _flat(tool: Any) -> Any:
    """A tool as the Responses API has it: a function's fields lie in the tool itself.

    There a function is strict unless it says otherwise, in Chat Completions it is not.
    """
    function = tool.get("function") if isinstance(tool, dict) else None
    return {"type": "function", "strict": False, **function} if isinstance(function, dict) else tool


def _flat_choice(choice: Any) -> Any:
    function = choice.get("function") if isinstance(choice, dict) else None
    return {"type": "function", **function} if isinstance(function, dict) else choice
