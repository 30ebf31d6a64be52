"""The attributes of spans, as OpenTelemetry's semantic conventions name them: those for generative AI (1.38 and later),
HTTP, messaging and errors. What the conventions have no name for begins with `pollux.`.

Nothing here reads prompts, outputs, tools or metadata. Texts that a provider chose are taken only where they have the
form of a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from server.protocol.tokens import tokens_in
from server.tracing.port import Call, Value

OTHER = "_OTHER"
"""What the conventions have for an `error.type` or a method that is none of those known."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NAME = re.compile(r"[A-Za-z0-9_.:/\-]{1,128}")

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_text": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""The conventions' names of providers that LiteLLM names otherwise. All others are the same, or in no list."""
_CUT_SHORT = {"max_output_tokens": "length", "content_filter": "content_filter"}
_CALLS = ("function_call", "custom_tool_call")


def error_type(kind: str) -> str:
    """A word for the kind of an error; what is none, such as a sentence of a provider's, is not shown."""
    return kind if _NAME.fullmatch(kind) else OTHER


def of_request(method: str, route: str) -> dict[str, Value]:
    return {"http.request.method": method if method in METHODS else OTHER, "http.route": route}


def of_job(operation: str, kind: str, model: str, owner: str, **more: Value) -> dict[str, Value]:
    """Of a message in the queue of jobs. `kind` is the conventions' word for the operation: `send` or `process`."""
    return {
        "messaging.system": "pollux",
        "messaging.destination.name": "jobs",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "pollux.model": model,
        "pollux.owner": owner,
        **{f"pollux.{name}": value for name, value in more.items()},
    }


def of_call(call: Call) -> dict[str, Value]:
    made: dict[str, Value] = {
        "gen_ai.operation.name": generating(call) or call.operation,
        "gen_ai.provider.name": _PROVIDERS.get(call.provider, call.provider),
        "gen_ai.request.model": call.model,
        "pollux.deployment": call.deployment,
        **of_address(call.base_url),
    }
    if call.generates:
        made["gen_ai.request.stream"] = call.stream
    return made


def generating(call: Call) -> str:
    """The conventions' word for an operation in which a model answers; empty for all others."""
    return "chat" if call.generates else ""


def of_address(url: str | None) -> dict[str, Value]:
    """Where a request goes: the host and the port, as paths and queries of webhooks may hold secrets."""
    try:
        parts = urlsplit(url or "")
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if not host:
        return {}
    return {"server.address": host, "server.port": port or (443 if parts.scheme == "https" else 80)}


def of_response(response: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """What a Response object tells of how it was made."""
    for name, attribute in (("id", "gen_ai.response.id"), ("model", "gen_ai.response.model")):
        value = response.get(name)
        if isinstance(value, str) and (name == "id" or _NAME.fullmatch(value)):
            yield attribute, value[:512]
    if reason := _finish_reason(response):
        yield "gen_ai.response.finish_reasons", (reason,)
    if (tokens := tokens_in(dict(response))) is not None:
        yield "gen_ai.usage.input_tokens", tokens.input
        yield "gen_ai.usage.output_tokens", tokens.output
        if tokens.cached:
            yield "gen_ai.usage.cache_read.input_tokens", tokens.cached
        if tokens.reasoning:
            yield "gen_ai.usage.reasoning.output_tokens", tokens.reasoning


def _finish_reason(response: Mapping[str, Any]) -> str | None:
    """Why the model stopped, in the words of Chat Completions, which the conventions have taken over."""
    match response.get("status"):
        case "completed":
            output = response.get("output")
            kinds = [item.get("type") for item in output if isinstance(item, dict)] if isinstance(output, list) else []
            return "tool_calls" if any(kind in _CALLS for kind in kinds) else "stop"
        case "incomplete":
            details = response.get("incomplete_details")
            reason = details.get("reason") if isinstance(details, dict) else None
            return _CUT_SHORT.get(str(reason), "length")
        case "failed":
            return "error"
    return None
