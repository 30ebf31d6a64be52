"""Completes a translated request for Anthropic's Messages, as the model takes it."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

from server.protocol.dialects.losses import Losses
from server.protocol.dialects.manners import Manners
from server.protocol.dialects.schemas import enforceable

_VERSION = re.compile(r"claude-(?:[a-z]+-)*(\d+)(?:[-.](\d{1,2}))?(?!\d)")
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
"""Tokens to think with, by the effort. LiteLLM's figures; the least that is allowed is 1,024."""
_LEAST_BUDGET = 1024
_LIMIT = 32_000
_LOW_LIMITS = (((3, 5), 4096), ((3, 7), 8192))
"""The most tokens that models before a version make (https://docs.claude.com/en/docs/about-claude/models)."""
_UNKNOWN_THERE = ("seed", "presence_penalty", "frequency_penalty", "logit_bias", "top_logprobs")
_ADAPTIVE, _STRICT = (4, 6), (4, 5)
"""The first versions of Claude that decide themselves how much to think, and that follow a JSON schema."""


def prepare(asked: dict[str, Any], choice: Any) -> None:
    """Leave out what the model refuses: it can't think before a call that it must make."""
    if choice not in (None, "auto", "none"):
        asked.pop("reasoning", None)


def finish(body: dict[str, Any], given: dict[str, Any], manners: Manners, losses: Losses) -> None:
    version = _version(str(body.get("model", "")))
    # The library asks for a cache of the prompt, which costs more and was not asked for.
    body.pop("cache_control", None)
    body["max_tokens"] = given.get("max_output_tokens") or given.get("max_tokens") or _limit(manners, version)
    for name in _UNKNOWN_THERE:
        body.pop(name, None)
        if given.get(name):
            losses.lose(name, f"'{name}'")
    if "stop" in body:
        stop = body.pop("stop")
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if user := given.get("safety_identifier") or given.get("user"):
        body["metadata"] = {"user_id": user}
    body.pop("service_tier", None)
    _mend_files(body["messages"])
    _format(body, given, version, losses)
    _think(body, given, version)
    _tools(body, given, version)


def _version(model: str) -> tuple[int, int] | None:
    """The version of Claude that a model's name tells; None if it tells none."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _limit(manners: Manners, version: tuple[int, int] | None) -> int:
    """The limit where the client names none: the model's own where it is low, else room enough for long answers."""
    if manners.most_tokens is not None:
        return manners.most_tokens
    return next((limit for before, limit in _LOW_LIMITS if version is not None and version < before), _LIMIT)


def _is(version: tuple[int, int] | None, least: tuple[int, int]) -> bool:
    return version is not None and version >= least


def _mend_files(messages: list[dict[str, Any]]) -> None:
    """Mend the sources of files, also in the outputs of tools."""
    for message in messages:
        for block in message["content"] if isinstance(message["content"], list) else ():
            inner = block.get("content") if block.get("type") == "tool_result" else None
            for holder in (block, *(inner if isinstance(inner, list) else ())):
                if (holder.get("source") or {}).get("type") == "base64":
                    holder["source"] = _source(holder["source"])


def _source(source: dict[str, Any]) -> dict[str, Any]:
    """A file as plain base64 instead of a data URL, and one of text as a text."""
    head, comma, data = str(source.get("data", "")).partition(",")
    if not (comma and head.startswith("data:")):
        return source
    kind = head.removeprefix("data:").split(";")[0] or source.get("media_type")
    if str(kind).startswith("text/"):
        try:
            return {"type": "text", "media_type": "text/plain", "data": b64decode(data, validate=True).decode()}
        except ValueError:
            pass  # it may know what to do with it
    return {**source, "data": data, "media_type": kind}


def _format(body: dict[str, Any], given: dict[str, Any], version: tuple[int, int] | None, losses: Losses) -> None:
    kind = ((given.get("text") or {}).get("format") or {}).get("type", "text")
    if kind == "json_object" or (kind == "json_schema" and version is not None and version < _STRICT):
        losses.lose("text.format", f"an output format of type '{kind}'")
        body.get("output_config", {}).pop("format", None)
    form = body.get("output_config", {}).get("format")
    if form is not None and "schema" in form:
        form["schema"] = enforceable(form["schema"])


def _think(body: dict[str, Any], given: dict[str, Any], version: tuple[int, int] | None) -> None:
    """Say how much to think: newer models take an effort, older ones a number of tokens."""
    if "thinking" in given:
        body["thinking"] = given["thinking"]  # the client speaks of it in Anthropic's words
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "adaptive" and not _is(version, _ADAPTIVE):
        effort = (given.get("reasoning") or {}).get("effort") or "medium"
        budget = min(_BUDGETS.get(effort, _LEAST_BUDGET), body["max_tokens"] - 1)
        body.get("output_config", {}).pop("effort", None)
        thinking = {"type": "enabled", "budget_tokens": budget} if budget >= _LEAST_BUDGET else {}
        body["thinking"] = thinking
    if thinking.get("type") == "enabled" and _goes_on_without_thoughts(body["messages"]):
        thinking = {}  # it is refused there
    if not thinking:
        body.pop("thinking", None)
    elif thinking.get("type") != "disabled":
        # A model that thinks takes no other temperature than its own.
        body.pop("temperature", None)
        body.pop("top_p", None)
    if not body.get("output_config", True):
        del body["output_config"]


def _goes_on_without_thoughts(messages: list[dict[str, Any]]) -> bool:
    """Whether the turn that is to go on has called tools and does not begin with the thinking before them.

    So it is if another provider began it, or if the client keeps no reasoning. See "Preserving thinking blocks":
    https://docs.claude.com/en/docs/build-with-claude/extended-thinking
    """
    turns = [message["content"] for message in messages if message["role"] == "assistant"]
    last = turns[-1] if turns and messages[-1]["role"] == "user" else []
    kinds = [block.get("type") for block in last] if isinstance(last, list) else []
    return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")


def _tools(body: dict[str, Any], given: dict[str, Any], version: tuple[int, int] | None) -> None:
    tools = body.get("tools") or []
    for tool in tools:
        if not _is(version, _STRICT):
            tool.pop("strict", None)
        if tool.get("strict"):
            tool["input_schema"] = enforceable(tool.get("input_schema"))
    if tools and given.get("parallel_tool_calls") is False:
        choice = body.setdefault("tool_choice", {"type": "auto"})
        if choice.get("type") != "none":
            choice["disable_parallel_tool_use"] = True
