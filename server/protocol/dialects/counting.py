"""Counting the tokens of an input: the request and the answer in the words of Anthropic's Messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.protocol import jsontext
from server.protocol.sse import ServerEvent

_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""Fields of a message's request that its count takes too; it refuses the others.

https://docs.claude.com/en/api/messages-count-tokens
"""


def counted(body: dict[str, Any]) -> dict[str, Any]:
    """The question for a request that was translated for Messages."""
    return {name: body[name] for name in _COUNTED if name in body}


class Count:
    """The translation of its answer."""

    def take(self, events: Iterable[ServerEvent]) -> list[ServerEvent]:
        return list(events)

    def end(self) -> list[ServerEvent]:
        return []

    def whole(self, raw: bytes) -> bytes:
        """The answer as the Responses API gives it. One of another form is returned unchanged."""
        try:
            answer, _ = jsontext.mended(raw)
        except ValueError:
            return raw
        count = answer.get("input_tokens") if isinstance(answer, dict) else None
        if not isinstance(count, int):
            return raw
        return jsontext.dumps({"object": "response.input_tokens", "input_tokens": count})
