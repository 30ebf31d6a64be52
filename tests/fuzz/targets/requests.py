"""Requests: whatever a client sends, it is parsed, listed and translated, or refused by an error of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from server.errors import PolluxError
from server.protocol import jsontext
from server.protocol.dialects.request import translated
from server.protocol.redaction import Secrets, shown_tools
from server.protocol.requests import check_cached, forwarded_request, input_items, job_request, parse_create
from server.protocol.status_events import shown_metadata, stored_metadata
from tests.fuzz.material import Material
from tests.protocol.dialects.test_request import ALL, GEMINI

_KEYS = (
    *("model", "input", "instructions", "tools", "tool_choice", "background", "stream", "store", "metadata", "text"),
    *("reasoning", "include", "previous_response_id", "max_output_tokens", "temperature", "parallel_tool_calls"),
    *("type", "role", "content", "name", "arguments", "call_id", "output", "id", "summary", "encrypted_content"),
    *("image_url", "file_data", "file_url", "detail", "filename", "format", "schema", "strict", "effort", "parameters"),
    *("properties", "required", "items", "$ref", "$defs", "anyOf", "server_url", "server_label", "allowed_tools"),
    *("require_approval", "headers", "authorization", "mode", "container", "file_ids", "filters", "allowed_domains"),
    *("background_options", "completion_window", "num_retries", "timeout", "fallbacks", "thinking", "budget_tokens"),
    *("top_logprobs", "stop", "user", "service_tier", "input_audio", "data", "annotations", "action", "namespace"),
)
_WORDS = (
    *("claude-opus-4-6", "hi", "user", "assistant", "system", "developer", "message", "input_text", "output_text"),
    *("input_image", "input_file", "input_audio", "reasoning", "function_call", "function_call_output", "custom"),
    *("custom_tool_call", "custom_tool_call_output", "function", "web_search", "code_interpreter", "mcp", "auto"),
    *("required", "none", "json_schema", "json_object", "object", "string", "array", "high", "minimal", "namespace"),
    *("data:image/png;base64,AAAA", "data:text/plain;base64,!", "https://a.example/a.png", "never", "call_1", "{}"),
    *("item_reference", "mcp_call", "shell_call", "shell_call_output", "allowed_tools", "enabled", "adaptive", "24h"),
    *("https://[", "disabled", "#/$defs/a", "refusal"),
)
_MANNERS = (*ALL, GEMINI)


def fuzz(data: bytes) -> None:
    material = Material(data)
    manners = replace(material.pick(_MANNERS), drops=bool(material.number(2)))
    raw = material.json(_KEYS, _WORDS) if material.number(8) == 1 else jsontext.dumps(_likely(material))
    try:
        asked = parse_create(raw)
        secrets = Secrets(asked.body)
        assert Secrets(asked.body)._texts == secrets._texts
        check_cached(asked.body)
    except PolluxError as error:
        _is_told(error)
        return
    before = jsontext.dumps(asked.body)
    _is_listed(asked.body)
    for sent in (forwarded_request(asked.body, "m", None), job_request(asked.body, "m", "resp_1")):
        jsontext.dumps(sent)
    try:
        told = translated(asked.body, manners)
    except PolluxError as error:
        _is_told(error)
    else:
        assert isinstance(jsontext.loads(jsontext.dumps(told.body))["messages"], list)
    assert jsontext.dumps(asked.body) == before, "a translation only reads"


def _likely(material: Material) -> dict[str, Any]:
    made = material.object(_KEYS, _WORDS)
    made["model"] = "claude-opus-4-6"
    for name in ("input", "tools"):
        if material.number(4):
            made[name] = [
                material.object(_KEYS[20:], _WORDS, depth=4) | {"type": material.pick(_WORDS)}
                for _ in material.times(5)
            ]
    return made


def _is_told(error: PolluxError) -> None:
    assert 400 <= error.status < 500, error
    jsontext.dumps(error.message)
    assert len(error.message) < 1000, "it is for reading"


def _is_listed(body: dict[str, Any]) -> None:
    items = input_items(body, "litellm_poll_1")
    jsontext.dumps(items)
    assert all(isinstance(item["id"], str) and isinstance(item["type"], str) for item in items)
    shown_tools(body.get("tools") or [])
    shown_metadata(stored_metadata(body.get("metadata")))
