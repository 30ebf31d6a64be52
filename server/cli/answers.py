"""What a response says, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that are calls of tools, and where each has what the tool is given."""


def text_of(response: Json) -> str:
    """The text of a response so far, its refusals and the calls of tools that are complete. Reasoning is left out."""
    return "\n\n".join(_blocks(response.get("output") or []))


def _blocks(output: list[Json]) -> Iterator[str]:
    for item in output:
        if item.get("type") == "message":
            yield from (text for part in item.get("content") or [] if (text := part.get("text") or part.get("refusal")))
        elif item.get("type") in CALLS and item.get("status") == "completed":
            yield call_of(item)


def call_of(item: Json) -> str:
    """A call of a tool in one line."""
    return f"→ {item.get('name')}({item.get(CALLS[item['type']]) or ''})"


def error_of(response: Json) -> str | None:
    """Why a response is not completed, in words."""
    if error := response.get("error"):
        return f"{error.get('code')}: {error.get('message')}"
    if details := response.get("incomplete_details"):
        return f"incomplete: {details.get('reason')}"
    return None


def tokens_of(response: Json) -> str | None:
    """The tokens that a response has used, in words."""
    usage = response.get("usage")
    if not usage:
        return None
    inside = usage.get("input_tokens_details") or {}
    cached = f" ({inside['cached_tokens']:,} cached)" if inside.get("cached_tokens") else ""
    beside = usage.get("output_tokens_details") or {}
    reasoning = f" ({beside['reasoning_tokens']:,} reasoning)" if beside.get("reasoning_tokens") else ""
    return f"{usage.get('input_tokens', 0):,} tokens in{cached}, {usage.get('output_tokens', 0):,} out{reasoning}"
