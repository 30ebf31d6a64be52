"""What is asked: a request of the Responses API in the words of another dialect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from server.errors import Untranslatable
from server.protocol.dialects import chat_request, hosted_tools, messages_request
from server.protocol.dialects.drops import without_fields, without_paths
from server.protocol.dialects.forms import check
from server.protocol.dialects.items import Items
from server.protocol.dialects.library import NotTranslated, converted_request
from server.protocol.dialects.losses import Losses
from server.protocol.dialects.manners import Dialect, Manners
from server.protocol.dialects.tools import allowed, namespaced, prepared_choice, prepared_tools, stood_in_for

_TRANSLATED = ("model", "stream", "max_output_tokens", "temperature", "top_p", "reasoning", "text")
_WITHOUT_EFFECT = frozenset(
    {
        *("background", "background_options", "include", "max_tool_calls", "metadata", "prompt_cache_key"),
        *("prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier", "store"),
        *("stream_options", "truncation", "user", "top_logprobs", "parallel_tool_calls"),
    }
)
"""Fields that do not change the answer, or that a dialect's own module looks at. Where there is no equivalent, they
are left out."""
_ESSENTIAL = ("previous_response_id", "conversation", "prompt", "context_management")
"""Fields without which the answer would be one to another question."""
_NO_LOSS = frozenset(
    {"text.format", "text.format.name", "text.format.description", "text.format.strict", "text.verbosity"}
)
"""What the library leaves out without harm, or what its dialect's own module decides about."""
_READ_HERE = frozenset({*_TRANSLATED, *_ESSENTIAL, "input", "instructions", "tools", "tool_choice"})


@dataclass(frozen=True, slots=True)
class Translated:
    """A request in the provider's dialect, and what is needed to read its answer."""

    body: dict[str, Any]
    custom_tools: frozenset[str]
    """Custom tools for which functions stand in."""
    namespaced: frozenset[str] = frozenset()
    """Tools in namespaces, by the names that the provider knows."""
    betas: tuple[str, ...] = ()
    """Trials of Anthropic's that it takes part in."""


def translated(body: dict[str, Any], manners: Manners) -> Translated:
    """A request as this provider takes it. Fields that no version of the Responses API has are passed on unchanged.

    Raises:
        Untranslatable, InvalidType

    """
    given = without_fields({name: value for name, value in body.items() if value is not None}, manners.dropped)
    check(given)
    told = _translated(given, manners)
    return replace(told, body=without_paths(told.body, manners.dropped))


def _translated(given: dict[str, Any], manners: Manners) -> Translated:
    losses = Losses(manners)
    for name in _ESSENTIAL:
        if name in given:
            losses.lose(name, f"'{name}'")
    tools, choice = allowed(given.get("tools", []), given.get("tool_choice"))
    items = Items(manners, losses)
    asked = {name: _said(given[name]) for name in _TRANSLATED if name in given}
    asked = {name: value for name, value in asked.items() if value != {}}
    asked["input"] = _instructions(given) + items.prepared(_items(given))
    if made := prepared_tools(tools, manners, losses):
        asked["tools"] = made
        if (chosen := prepared_choice(choice, manners, losses)) is not None:
            asked["tool_choice"] = chosen
    if manners.dialect is Dialect.MESSAGES:
        messages_request.prepare(asked, choice if tools else None)
    try:
        answer, lost = converted_request(asked, manners.dialect)
    except NotTranslated as error:
        raise Untranslatable(manners.provider, "input", f"a part of the request ({error})") from error
    for field, why in lost:
        if field not in _NO_LOSS:
            losses.lose(field, f"it ({why})")
    answer |= {name: value for name, value in given.items() if name not in _READ_HERE | _WITHOUT_EFFECT}
    if manners.dialect is Dialect.CHAT:
        chat_request.finish(answer, given, manners, losses, items)
        chat_request.choose_custom(answer, choice)
        return Translated(answer, stood_in_for(tools, manners), namespaced(tools))
    betas = hosted_tools.add(answer, tools, losses)
    hosted_tools.choose(answer, choice)
    messages_request.finish(answer, given, manners, losses)
    return Translated(answer, stood_in_for(tools, manners), namespaced(tools), betas)


def _said(value: Any) -> Any:
    """A value without what it does not say: SDKs write null for it. What is old is left out as well."""
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if part is not None and name != "generate_summary"}


def _items(given: dict[str, Any]) -> list[Any]:
    value: str | list[Any] = given.get("input", [])
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _instructions(given: dict[str, Any]) -> list[dict[str, Any]]:
    """The instructions as a message, because the library knows the field in one of two dialects only."""
    text = given.get("instructions")
    return [{"type": "message", "role": "system", "content": text}] if isinstance(text, str) and text else []
