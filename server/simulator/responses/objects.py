"""The Response objects that show a reply."""

from collections.abc import Sequence
from typing import Any

from server.simulator.reply import Reply, given_tokens, tokens
from server.simulator.turn import Json

# In the order in which OpenAI gives them; where a request has a value other than null, that is echoed.
_ECHOED: Json = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


def response_object(
    reply: Reply,
    status: str,
    *,
    output: Sequence[Json] = (),
    error: Json | None = None,
    ended_after_s: float = 0.0,
) -> Json:
    """The Response object in the given state, with all the fields of a real one."""
    request = reply.request
    ended = status in {"completed", "incomplete"}
    response: Json = {
        "id": reply.id,
        "object": "response",
        "created_at": int(reply.created_at),
        "status": status,
        "completed_at": int(reply.created_at + ended_after_s) if status == "completed" else None,
        "error": error,
        "incomplete_details": {"reason": _reason(reply)} if status == "incomplete" else None,
        "model": request["model"],
        "output": list(output),
        "reasoning": {"effort": None, "summary": None} | (request.get("reasoning") or {}),
        "text": {"format": {"type": "text"}, "verbosity": "medium"} | (request.get("text") or {}),
        "tools": [_echoed_tool(tool) for tool in request.get("tools") or []],
        "usage": _usage(reply, output) if ended else None,
    }
    for key, default in _ECHOED.items():
        value = request.get(key)
        response[key] = default if value is None else value
    if ended:
        response["service_tier"] = "default"
        response["billing"] = {"payer": "developer"}
    return response


def _echoed_tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True} | tool


def _reason(reply: Reply) -> str:
    return "content_filter" if reply.directives.content_filter else "max_output_tokens"


def _usage(reply: Reply, output: Sequence[Json]) -> Json:
    reasoning = sum(_tokens(item) for item in output if item["type"] == "reasoning")
    spent = sum(_tokens(item) for item in output)
    given = given_tokens(reply)
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": spent,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": given + spent,
    }


def _tokens(item: Json) -> int:
    parts = [*item.get("content", ()), *item.get("summary", ())]
    texts = [part.get("text") or part.get("refusal") or "" for part in parts]
    return tokens("".join((*texts, item.get("arguments", ""), item.get("input", ""))))
