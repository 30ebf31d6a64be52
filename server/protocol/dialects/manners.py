"""Manners: the dialect that a deployment speaks, and how far its provider goes along with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Dialect(StrEnum):
    """An API that a deployment speaks."""

    RESPONSES = "responses"
    CHAT = "chat"
    """Chat Completions."""
    MESSAGES = "messages"
    """Anthropic's Messages."""


@dataclass(frozen=True, slots=True)
class Manners:
    """What one provider understands of its dialect."""

    dialect: Dialect = Dialect.RESPONSES
    provider: str = ""
    """Its name in errors."""
    full: bool = False
    """Whether it takes all of OpenAI's fields. Many compatible providers answer an unknown field with an error."""
    max_tokens_field: str = "max_tokens"
    """What Chat Completions call the limit of the output."""
    stream_usage: bool = True
    """Whether a stream is to be asked for its usage; a provider that sends it anyway may refuse the question."""
    json_schema: bool = True
    reasoning_back: bool = False
    """Whether the reasoning of a turn that goes on is sent back as `reasoning_content`: some demand it, others refuse
    it."""
    nine_letter_ids: bool = False
    """Whether ids of tool calls must be nine letters and digits."""
    signed_calls: bool = False
    """Whether tool calls carry a signature of the thinking before them, and must be sent back with it."""
    most_tokens: int | None = None
    """The limit of the output where the client names none and the dialect demands one; None: by the model's name."""
    drops: bool = False
    """Whether fields without an equivalent are left out silently (LiteLLM's `drop_params`), instead of refused."""
    dropped: frozenset[str] = frozenset()
    """Fields that are left out always (LiteLLM's `additional_drop_params`)."""
