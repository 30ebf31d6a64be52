"""Completes a translated request for Chat Completions, as its provider takes it."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from server.protocol.dialects.items import Items
from server.protocol.dialects.losses import Losses
from server.protocol.dialects.manners import Manners

Message = dict[str, Any]

_UNSIGNED = "skip_thought_signature_validator"

_OPENAIS = ("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user")
"""Fields without effect on the answer, which only OpenAI's own implementation is sure to take."""


def finish(body: dict[str, Any], given: dict[str, Any], manners: Manners, losses: Losses, items: Items) -> None:
    body["messages"] = _joined([_restored(message, items.aside) for message in _with_images_apart(body["messages"])])
    if manners.signed_calls:
        _sign(body["messages"], items.signatures)
    for message in body["messages"]:
        _flatten(message)
    if body.get("stream") and manners.stream_usage:
        body["stream_options"] = {"include_usage": True}
    else:
        body.pop("stream_options", None)
    if manners.full:
        body |= {name: given[name] for name in _OPENAIS if name in given}
    elif "max_completion_tokens" in body:
        body[manners.max_tokens_field] = body.pop("max_completion_tokens")
    if not manners.full:
        body.pop("verbosity", None)
    _think(body, given)
    if given.get("top_logprobs") or "message.output_text.logprobs" in (given.get("include") or ()):
        body |= {"logprobs": True, "top_logprobs": given.get("top_logprobs") or 0}
    if "tools" in body and given.get("parallel_tool_calls") is False:
        body["parallel_tool_calls"] = False
    if not manners.json_schema and (body.get("response_format") or {}).get("type") == "json_schema":
        losses.lose("text.format", "an output that follows a JSON schema")
        body["response_format"] = {"type": "json_object"}


def choose_custom(body: dict[str, Any], choice: Any) -> None:
    """Name the custom tool that must be called as one, where the provider knows such tools."""
    kinds = {tool["custom"]["name"] for tool in body.get("tools") or () if tool.get("type") == "custom"}
    if isinstance(choice, dict) and choice.get("type") == "custom" and choice.get("name") in kinds:
        body["tool_choice"] = {"type": "custom", "custom": {"name": choice["name"]}}


def _sign(messages: list[Message], signatures: dict[str, str]) -> None:
    """Give the first call of each turn its signature, or the word that Google takes for one of another model.

    https://ai.google.dev/gemini-api/docs/thought-signatures
    """
    for message in messages:
        for place, call in enumerate(message.get("tool_calls") or ()):
            signature = signatures.get(call["id"]) or (_UNSIGNED if place == 0 else None)
            if signature:
                call["extra_content"] = {"google": {"thought_signature": signature}}


def _think(body: dict[str, Any], given: dict[str, Any]) -> None:
    """Ask for the effort by the field that all understand."""
    body.pop("reasoning", None)
    effort = (given.get("reasoning") or {}).get("effort")
    if effort:
        body["reasoning_effort"] = effort


def _restored(message: Message, aside: dict[str, Message]) -> Message:
    """The message with the parts that were kept aside."""
    content = message.get("content")
    if aside and isinstance(content, str) and content in aside:
        return {**message, "content": [aside[content]]}
    if aside and isinstance(content, list):
        parts = [aside.get(part.get("text", ""), part) for part in content]
        return {**message, "content": parts}
    return message


def _with_images_apart(messages: list[Message]) -> list[Message]:
    """The messages with images of tools' outputs in a message of the user: a tool's message takes text only."""
    made: list[Message] = []
    waiting: list[Message] = []
    for message in messages:
        if message.get("role") != "tool":
            made += [*_shown(waiting), message]
            waiting = []
            continue
        parts = _parts(message.get("content"))
        waiting += [part for part in parts if part.get("type") != "text"]
        text = "".join(part["text"] for part in parts if part.get("type") == "text")
        made.append({**message, "content": text})
    return made + _shown(waiting)


def _shown(parts: list[Message]) -> list[Message]:
    return [{"role": "user", "content": parts}] if parts else []


def _joined(messages: list[Message]) -> list[Message]:
    """The messages with the text, the reasoning and the tool calls of one turn in one message, as providers made it."""
    made: list[Message] = []
    for role, group in groupby(messages, lambda message: message.get("role")):
        turn = list(group)
        made += [_one_turn(turn)] if role == "assistant" else map(dict, turn)
    return made


def _one_turn(messages: list[Message]) -> Message:
    first, *others = messages
    turn = dict(first)
    if any(message.get("content") for message in others):
        turn["content"] = [part for message in messages for part in _parts(message.get("content"))]
    if thoughts := [message["reasoning_content"] for message in messages if message.get("reasoning_content")]:
        turn["reasoning_content"] = "".join(thoughts)
    if calls := [call for message in messages for call in message.get("tool_calls") or ()]:
        turn["tool_calls"] = calls
    return turn


def _parts(content: Any) -> list[Message]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or ())


def _flatten(message: Message) -> None:
    """Write a content of nothing but text as a string: some providers take no list there."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    if all(part.get("type") == "text" for part in parts) and (len(parts) == 1 or (parts and message["role"] != "user")):
        message["content"] = "".join(part["text"] for part in parts)
    if message["role"] == "assistant" and message.get("tool_calls") and not message.get("content"):
        message["content"] = None
