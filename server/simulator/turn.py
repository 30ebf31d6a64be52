"""The turn that a request makes: its input, normalised to items, and what it says as text."""

import hashlib
from typing import Any

from server.simulator.errors import invalid_type

Json = dict[str, Any]

_OF_THE_MODEL = {"function_call", "custom_tool_call", "reasoning"}


def derived_id(response_id: str, prefix: str, place: str) -> str:
    """An id for an item of a response: always the same for the same place, so nothing needs to be kept."""
    stem = response_id.removeprefix("resp_")[:16]
    return f"{prefix}_{stem}{hashlib.sha256(f'{response_id}/{place}'.encode()).hexdigest()[:34]}"


def input_items(value: Any, response_id: str) -> list[Json]:
    """The input as GET input_items lists it: typed items, each with an id, message text in parts."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise invalid_type("input", "a string or an array", value)
    return [_item(item, n, response_id) for n, item in enumerate(value)]


def turn_text(items: list[Json]) -> str:
    """What the user, or the tools, said since the model last spoke."""
    said: list[str] = []
    for item in reversed(items):
        if item.get("role") == "assistant" or item["type"] in _OF_THE_MODEL:
            break
        if item.get("role") == "user":
            said.append(_parts_text(item["content"]))
        elif item["type"] in {"function_call_output", "custom_tool_call_output"}:
            said.append(_parts_text(item.get("output")))
    return "\n".join(reversed(said))


def _item(item: Any, n: int, response_id: str) -> Json:
    if not isinstance(item, dict):
        raise invalid_type(f"input[{n}]", "an object", item)
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
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


def _parts_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
