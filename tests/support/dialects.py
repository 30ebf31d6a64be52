"""Streams of Chat Completions and Messages: some of our own writing, and what any stream says, read independently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]


class Said(NamedTuple):
    """What an answer says, whichever dialect it is in."""

    text: str
    reasoning: str
    calls: list[tuple[str, str]]
    """Name and arguments of each tool call, in order."""
    usage: tuple[int, int]
    """Tokens of the input and of the output."""


def load(recording: Path) -> list[Json]:
    return [json.loads(line) for line in recording.read_text().splitlines() if line.strip()]


def said_in_chat(chunks: list[Json]) -> Said:
    text, reasoning, usage = "", "", (0, 0)
    calls: list[list[str]] = []
    for chunk in chunks:
        told = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
        usage = (told["prompt_tokens"], told["completion_tokens"]) if told else usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            parts: Any = delta.get("content") or ""
            for part in parts if isinstance(parts, list) else [{"type": "text", "text": parts}]:
                text += part.get("text", "")
                reasoning += "".join(one["text"] for one in part.get("thinking", ()))
            for call in delta.get("tool_calls") or ():
                if call["function"].get("name"):
                    calls.append([call["function"]["name"], ""])
                calls[-1][1] += call["function"].get("arguments") or ""
    return Said(text, reasoning, [(name, arguments or "{}") for name, arguments in calls], usage)


def said_in_messages(events: list[Json]) -> Said:
    text, reasoning, told = "", "", Json()
    calls: dict[int, list[str]] = {}
    for event in events:
        told |= (event.get("message") or event).get("usage") or {}
        block, delta = event.get("content_block") or {}, event.get("delta") or {}
        text += delta.get("text", "")
        reasoning += delta.get("thinking", "")
        if block.get("type") == "tool_use":
            calls[event["index"]] = [block["name"], ""]
        elif event.get("index") in calls:
            calls[event["index"]][1] += delta.get("partial_json", "")
    counted = [told.get(f"{name}input_tokens") or 0 for name in ("", "cache_read_", "cache_creation_")]
    made = [(name, arguments or "{}") for name, arguments in calls.values()]
    return Said(text, reasoning, made, (sum(counted), told["output_tokens"]))


def said_in_response(response: Json) -> Said:
    output, usage = response["output"], response["usage"]
    text = "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])
    reasoning = "".join(part["text"] for item in output if item["type"] == "reasoning" for part in item["summary"])
    calls = [(item["name"], item["arguments"]) for item in output if item["type"] == "function_call"]
    return Said(text, reasoning, calls, (usage["input_tokens"], usage["output_tokens"]))


def chunk(delta: Json, reason: str | None = None, **fields: Any) -> Json:
    """One chunk of Chat Completions."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **fields}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m-1", "choices": [choice]}


def chat_usage(given: int, made: int) -> Json:
    usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    return {**chunk({}), "choices": [], "usage": usage}


def message_start(**usage: int) -> Json:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-x"}
    return {"type": "message_start", "message": {**message, "usage": {"input_tokens": 9, "output_tokens": 1, **usage}}}


def block(index: int, content: Json, *deltas: Json) -> list[Json]:
    """One content block of Messages, piece by piece."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def message_end(reason: str, **usage: int) -> list[Json]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7, **usage}},
        {"type": "message_stop"},
    ]
