"""The order of items: elsewhere the output of a call must stand right behind the turn that called it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Item = dict[str, Any]


def with_outputs_in_place(items: list[Item]) -> list[Item]:
    """The items, where outputs that came later, say behind a word of the user, stand behind their calls' turn."""
    outputs: dict[Any, list[Item]] = {}
    for item in items:
        if _is_output(item):
            outputs.setdefault(item.get("call_id"), []).append(item)
    return list(_placed(items, outputs)) if outputs else items


def _placed(items: list[Item], outputs: dict[Any, list[Item]]) -> Iterator[Item]:
    called: list[Any] = []
    placed: set[int] = set()
    for item in items:
        if not _is_of_the_model(item):
            # Each call has one output: some providers give calls of later turns the same ids again.
            ours = [outputs[call_id].pop(0) for call_id in called if outputs.get(call_id)]
            placed |= {id(output) for output in ours}
            yield from ours
            called = []
        elif str(item.get("type")).endswith("_call"):
            called.append(item.get("call_id"))
        if id(item) in placed:
            continue
        if _is_output(item):  # of no call before it
            outputs[item.get("call_id")].remove(item)
        yield item


def _is_output(item: Item) -> bool:
    return str(item.get("type")).endswith("_call_output")


def _is_of_the_model(item: Item) -> bool:
    return item.get("role") == "assistant" or item.get("type") in ("function_call", "custom_tool_call", "reasoning")
