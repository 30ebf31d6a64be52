"""How an answer ended: the reasons that providers give, and the usage, in the words of the Responses API."""

from __future__ import annotations

from typing import Any, NamedTuple

from server.protocol.dialects.fields import object_in

Usage = dict[str, Any]

_LENGTH, _FILTERED = "max_output_tokens", "content_filter"
_INCOMPLETE = {
    **dict.fromkeys(("length", "max_tokens", "model_length", "model_context_window_exceeded"), _LENGTH),
    **dict.fromkeys(
        ("content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content"), _FILTERED
    ),
    **dict.fromkeys(("spii", "sensitive", "guardrail_intervened"), _FILTERED),
    "pause_turn": "pause_turn",
}
_FAILED = frozenset({"error", "insufficient_system_resource", "network_error", "abort"})

_MOST = 2**53
"""No count is larger: JavaScript has no exact numbers beyond it."""


class Finish(NamedTuple):
    """The end of a response: the type of its last event, and what belongs into its object."""

    status: str
    incomplete_details: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


def finish_for(reason: str, details: dict[str, Any] | None = None) -> Finish:
    """The end that a provider's reason means. A reason that nobody knows is a normal end."""
    known = reason.lower()
    if known in _FAILED:
        return Finish("failed", error={"code": "server_error", "message": f"The provider stopped: {reason[:200]}."})
    if why := _INCOMPLETE.get(known):
        told = {"message": text} if isinstance(text := (details or {}).get("explanation"), str) else {}
        return Finish("incomplete", incomplete_details={"reason": why, **told})
    return Finish("completed")


def chat_usage(told: Usage) -> Usage:
    """The usage as Chat Completions tell it. DeepSeek names the cached tokens in a field of its own."""
    given, made = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    cached = _within(told, "prompt_tokens_details", "cached_tokens") or _count(told.get("prompt_cache_hit_tokens"))
    return _usage(
        given,
        made,
        cached,
        reasoning=_within(told, "completion_tokens_details", "reasoning_tokens"),
        total=_count(told.get("total_tokens")),
    )


def messages_usage(told: Usage) -> Usage:
    """The usage as Messages tell it, where tokens read from the cache or written to it are not in `input_tokens`."""
    read, written = _count(told.get("cache_read_input_tokens")), _count(told.get("cache_creation_input_tokens"))
    usage = _usage(_count(told.get("input_tokens")) + read + written, _count(told.get("output_tokens")), read)
    if written:
        usage["input_tokens_details"]["cache_write_tokens"] = written
    return usage


def _usage(given: int, made: int, cached: int, *, reasoning: int = 0, total: int = 0) -> Usage:
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": total or given + made,
    }


def _within(told: Usage, group: str, name: str) -> int:
    return _count(object_in(told, group).get(name))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < _MOST else 0
