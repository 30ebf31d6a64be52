"""The Response object of a cached response: where the value of each key comes from.

Some keys, such as `id` and `status`, are set by Pollux. Every other key has the first value that is not null of: the
upstream's, the request's, the default. A null in these keys would break the SDKs' own code (`for t in response.tools`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from server.protocol.lifecycle import Status
from server.protocol.redaction import NO_SECRETS, Secrets, shown_tools
from server.protocol.tokens import tokens_in

DEFAULTS: dict[str, Any] = {
    "output": [],
    "usage": None,
    "model": "",
    "metadata": {},
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "user": None,
    "parallel_tool_calls": True,
    "store": True,
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "service_tier": "auto",
    "truncation": "disabled",
    "tool_choice": "auto",
    "tools": [],
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
}

_NOT_ECHOED = frozenset({"output", "usage"})
"""Keys that a request can't set, even if it names them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The values set by Pollux that are the same in every object of one response."""

    id: str
    created_at: int
    request: dict[str, Any]
    """The body that the client sent. A run omits its `input`, which may be long and is not echoed."""
    secrets: Secrets = NO_SECRETS
    """The secrets in the request's tools, which no object may show."""


def response_object(
    who: Identity,
    status: Status,
    upstream: dict[str, Any] | None = None,
    *,
    output: list[Any] | None = None,
    error: dict[str, Any] | None = None,
    ended_at: int | None = None,
) -> dict[str, Any]:
    """The object with all its keys.

    `upstream` is the provider's response object, as far as known. `output` and `error` replace the provider's own;
    `ended_at` is used if the provider gave no `completed_at`.
    """
    theirs = upstream or {}
    completed_at = theirs.get("completed_at")
    made: dict[str, Any] = {
        **theirs,
        "id": who.id,
        "object": "response",
        "created_at": who.created_at,
        "status": status,
        "background": True,
        "completed_at": (ended_at if completed_at is None else completed_at) if status is Status.COMPLETED else None,
        "error": _error(error or theirs.get("error")) if status is Status.FAILED else None,
        "incomplete_details": theirs.get("incomplete_details") if status is Status.INCOMPLETE else None,
        "previous_response_id": who.request.get("previous_response_id"),
    }
    fill(made, who.request)
    if output is not None:
        made["output"] = output
    return made


def fill(made: dict[str, Any], request: dict[str, Any]) -> None:
    """Complete an object in place, from the request and the defaults."""
    for key, default in DEFAULTS.items():
        value = made.get(key)
        if value is None and key not in _NOT_ECHOED:
            value = request.get(key)
        if isinstance(default, dict) and isinstance(value, dict):
            value = {**default, **{name: part for name, part in value.items() if part is not None}}
        made[key] = default if value is None else value
    made["tools"] = _tools(made["tools"])
    made["text"] = _text(made["text"])
    made["usage"] = _usage(made["usage"])


def fill_foreign(made: dict[str, Any], request: dict[str, Any]) -> None:
    """Add all missing standard keys to a provider's own object in place, and keep the provider's values."""
    for key in ("error", "incomplete_details", "completed_at"):
        made.setdefault(key, None)
    made.setdefault("background", request.get("background") or False)
    made.setdefault("previous_response_id", request.get("previous_response_id"))
    fill(made, request)


def _tools(tools: Any) -> Any:
    if not isinstance(tools, list):
        return []
    missing = {"description": None, "parameters": None, "strict": True}
    return [
        {**tool, **{key: tool.get(key, value) for key, value in missing.items()}}
        if isinstance(tool, dict) and tool.get("type") == "function"
        else tool
        for tool in shown_tools(tools)
    ]


def _text(text: Any) -> Any:
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return text
    missing = {"description": None, "strict": False}
    return {**text, "format": {**form, **{key: form.get(key, value) for key, value in missing.items()}}}


def _usage(usage: Any) -> Any:
    """The tokens as clients of OpenAI's read them: no count is missing, or no number."""
    told = tokens_in({"usage": usage})
    if told is None:
        return None
    counts = {"input_tokens": told.input, "output_tokens": told.output, "total_tokens": told.input + told.output}
    return {
        **usage,
        **{name: count for name, count in counts.items() if type(usage.get(name)) is not int},
        "input_tokens_details": usage.get("input_tokens_details") or {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": usage.get("output_tokens_details") or {"reasoning_tokens": 0},
    }


def _error(error: Any) -> dict[str, Any]:
    given = error if isinstance(error, dict) else {}
    return {
        "code": str(given.get("code") or "server_error"),
        "message": str(given.get("message") or "The provider reported a failure without a message."),
    }
