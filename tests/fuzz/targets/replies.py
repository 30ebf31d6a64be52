"""Answers of Chat Completions and Messages: whatever events come, they make a stream in order, or one error."""

from __future__ import annotations

from server.protocol import jsontext
from server.protocol.dialects.manners import Dialect
from server.protocol.sse import ServerEvent
from tests.fuzz.material import Material
from tests.protocol.dialects.test_oddities import is_in_order
from tests.protocol.dialects.test_reply import new_reply

_KEYS = {
    Dialect.CHAT: (
        *("choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments", "index", "id"),
        *("finish_reason", "usage", "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens"),
        *("reasoning_content", "reasoning", "refusal", "logprobs", "token", "bytes", "logprob", "top_logprobs"),
        *("custom",),
        *("annotations", "url_citation", "url", "title", "start_index", "citations", "search_results", "images"),
        *("image_url", "audio", "transcript", "error", "code", "type", "object", "x_groq", "extra_content", "google"),
        *("thought_signature", "function_call", "text", "thinking", "input", "model", "total_tokens"),
    ),
    Dialect.MESSAGES: (
        *("type", "message", "content_block", "delta", "index", "text", "thinking", "signature", "partial_json"),
        *("stop_reason", "stop_sequence", "usage", "input_tokens", "output_tokens", "cache_read_input_tokens"),
        *("cache_creation_input_tokens", "id", "name", "input", "content", "citations", "citation", "data", "error"),
        *("tool_use_id", "server_name", "is_error", "container", "url", "title", "cited_text", "encrypted_content"),
        *("stdout", "stderr", "return_code", "source", "media_type", "file_id", "model", "role", "query", "code"),
    ),
}
_WORDS = {
    Dialect.CHAT: (
        *("stop", "length", "content_filter", "tool_calls", "f", "{}", '{"input": "x"}', "call_1", "text", "thinking"),
        *("https://a.example", "data:image/png;base64,AAAA", "chat.completion", "error", "function", "custom"),
    ),
    Dialect.MESSAGES: (
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
        *("message_stop", "message", "error", "text", "text_delta", "thinking", "thinking_delta", "signature_delta"),
        *("tool_use", "input_json_delta", "server_tool_use", "web_search_tool_result", "mcp_tool_use", "web_fetch"),
        *("mcp_tool_result", "code_execution", "code_execution_tool_result", "bash_code_execution", "citations_delta"),
        *("web_search_result_location", "char_location", "redacted_thinking", "end_turn", "pause_turn", "refusal", "f"),
        *("web_search_result", "web_search", "web_search_tool_result_error", "web_fetch_tool_result", "{}"),
    ),
}
_NAMES = ("", "", "error", "message", "ping")


def fuzz(data: bytes) -> None:
    material = Material(data)
    dialect = material.pick((Dialect.CHAT, Dialect.MESSAGES))
    bodies = [_body(material, dialect) for _ in range(1 + material.number(12))]
    reply = new_reply(dialect, "f")
    made = [event for raw in bodies for event in reply.take([ServerEvent(material.pick(_NAMES), raw, raw)])]
    is_in_order([jsontext.loads(event.data) for event in [*made, *reply.end()]])
    answer = jsontext.loads(new_reply(dialect, "f").whole(bodies[0])) if _is_json(bodies[0]) else {}
    assert answer.get("object") != "response" or isinstance(answer["output"], list)


def _body(material: Material, dialect: Dialect) -> bytes:
    keys, words = _KEYS[dialect], _WORDS[dialect]
    if material.number(16) == 1:
        return b"[DONE]"
    made = material.object(keys, words)
    if dialect is Dialect.CHAT and material.number(4):
        delta = material.object(keys[2:], words)
        made["choices"] = [{"index": 0, "delta": delta, "finish_reason": material.pick((None, None, None, *words[:4]))}]
    elif dialect is Dialect.MESSAGES and material.number(4):
        made["type"] = material.pick(words[:8])
        made["index"] = material.pick((0, 0, 1, 2, "0", None))
        for name in ("content_block", "delta"):
            made[name] = material.object(keys[1:], words, depth=4) | {"type": material.pick(words[8:])}
    return jsontext.dumps(made)


def _is_json(raw: bytes) -> bool:
    return raw != b"[DONE]"
