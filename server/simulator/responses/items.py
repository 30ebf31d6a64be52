"""The input of a request, normalised to items."""

from typing import Any

from server.simulator.errors import invalid_type
from server.simulator.turn import Json, Utterance, derived_id, parts_text

_OF_THE_MODEL = {"function_call", "custom_tool_call", "reasoning"}
_OF_A_TOOL = {"function_call_output", "custom_tool_call_output"}


def input_items(value: Any, response_id: str) -> list[Json]:
    """The input as GET input_items lists it: typed items, each with an id, message text in parts."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise invalid_type("input", "a string or an array", value)
    return [_item(item, n, response_id) for n, item in enumerate(value)]


def utterance(item: Json) -> Utterance:
    by_model = item.get("role") == "assistant" or item["type"] in _OF_THE_MODEL
    if item.get("role") == "user":
        return Utterance(by_model, parts_text(item.get("content")))
    return Utterance(by_model, parts_text(item.get("output")) if item["type"] in _OF_A_TOOL else None)


def _item(item: Any, n: int, response_id: str) -> Json:
    if not isinstance(item, dict):
        raise invalid_type(f"input[{n}]", "an object", item)
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    if not isinstance(kind, str):
        raise invalid_type(f"input[{n}].type", "a string", kind)
    normal = {"id": derived_id(response_id, "msg" if kind == "message" else "item", f"input {n}"), **item}
    normal["type"] = kind
    if kind != "message":
        return normal
    content = item.get("content")
    if isinstance(content, str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        content = [{"type": part, "text": content}]
    if not isinstance(content, list):
        raise invalid_type(f"input[{n}].content", "a string or an array", content)
    return {**normal, "status": "completed", "content": content}
