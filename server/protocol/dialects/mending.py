"""Completes the events that the library makes: ids, numbers, sources, probabilities, and items that it does not know.

A Responses stream tells each item twice: piece by piece, and whole when it is done. The items that were done are kept
here, and the last event tells them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.protocol.dialects.finish import Finish, Usage
from server.protocol.dialects.tools import from_arguments, full_name

Event = dict[str, Any]

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "web_search_call": "ws",
    "mcp_call": "mcp",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
}
_UNFINISHED = {"status": "in_progress", "result": None}
"""What an item that comes whole says when it is announced."""
_ARGUMENTS_DELTA, _ARGUMENTS_DONE = "response.function_call_arguments.delta", "response.function_call_arguments.done"


class _Item:
    """One item of the output, from its beginning on."""

    def __init__(self, item_id: str, index: int, *, custom: bool) -> None:
        self.id = item_id
        self.index = index
        self.custom = custom
        """Whether it is a function call that stands for the call of a custom tool."""
        self.begun: Event | None = None
        """As it was told when it began."""
        self.said = False
        """Whether its arguments were told in pieces."""
        self.parts: dict[Any, dict[str, Any]] = {}
        """What belongs to its parts besides text: logprobs and annotations, by place."""


class Mending:
    """The events of one answer."""

    def __init__(
        self,
        response_id: str,
        seed: str,
        created_at: int,
        custom_tools: frozenset[str],
        namespaced: frozenset[str] = frozenset(),
    ) -> None:
        self._response: Event = {
            "id": response_id,
            "object": "response",
            "created_at": created_at,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": [],
        }
        self._seed = seed
        self._custom_tools = custom_tools
        self._namespaced = namespaced
        self._items: dict[Any, _Item] = {}
        self._done: dict[int, Event] = {}

    def name_model(self, model: str) -> None:
        """Note under which name the provider answers."""
        if model:
            self._response["model"] = model

    def mended(self, event: Event, logprobs: list[Event], annotations: list[Event]) -> Iterator[Event]:
        """The events that stand for one of the library's. Its own last event is left out: `terminal` makes it."""
        kind = event["type"]
        if kind in ("response.created", "response.in_progress"):
            yield {"type": kind, "response": self._response}
        elif kind == "response.output_item.added":
            yield from self._added(event)
        elif kind == "response.output_item.done":
            yield from self._finished(event)
        elif (item := self._items.get(event.get("item_id"))) is not None:
            event |= {"item_id": item.id, "output_index": item.index}
            if kind.startswith("response.function_call_arguments."):
                yield from self._arguments(event, item)
            elif not (kind.endswith(".delta") and event.get("delta") == ""):
                yield from self._part(event, item, logprobs, annotations)

    def whole(self, item: Event) -> Iterator[Event]:
        """The events of an item that comes whole."""
        index = len(self._items)
        kept = self._items[f"whole {index}"] = self._new(item, index)
        item = {"id": kept.id, **item}
        place = {"output_index": index, "item_id": kept.id}
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**item, **{name: value for name, value in _UNFINISHED.items() if name in item}},
        }
        if item["type"] == "mcp_call":
            yield {"type": "response.mcp_call_arguments.done", **place, "arguments": item["arguments"]}
        if item["type"] == "code_interpreter_call":
            yield {"type": "response.code_interpreter_call_code.done", **place, "code": item["code"]}
        if item["type"].endswith("_call"):
            yield {
                "type": f"response.{item['type']}.{'failed' if item['status'] == 'failed' else 'completed'}",
                **place,
            }
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
        self._done[index] = item

    def unfinished(self) -> Iterator[Event]:
        """The ends of the items that the library has begun and not ended: those of which nothing was said."""
        for item in self._items.values():
            if item.begun is not None and item.index not in self._done:
                self._done[item.index] = made = {**item.begun, "status": "completed"}
                yield {"type": "response.output_item.done", "output_index": item.index, "item": made}

    def terminal(self, finish: Finish, usage: Usage | None) -> Event:
        """The last event."""
        output = [self._done[index] for index in sorted(self._done)]
        response = {
            **self._response,
            "status": finish.status,
            "incomplete_details": finish.incomplete_details,
            "error": finish.error,
            "output": output,
            "usage": usage,
        }
        return {"type": f"response.{finish.status}", "response": response}

    def _new(self, item: Event, index: int) -> _Item:
        custom = (
            item["type"] == "function_call" and full_name(item.get("namespace"), item["name"]) in self._custom_tools
        )
        prefix = "ctc" if custom else _PREFIXES.get(item["type"], "item")
        return _Item(f"{prefix}_{self._seed}{index:04x}", index, custom=custom)

    def _named(self, item: Event) -> Event:
        """The item with the name that its tool has: the library takes every name that looks so for a namespace's."""
        name = full_name(item.get("namespace"), item.get("name") or "")
        if "namespace" not in item or name in self._namespaced:
            return item
        return {**_without(item, "namespace"), "name": name}

    def _added(self, event: Event) -> Iterator[Event]:
        item = self._named(event["item"])
        kept = self._items[item.get("id")] = self._new(item, len(self._items))
        begun = item.get("arguments") or item.get("input") or ""
        shown: Event = {**item, "id": kept.id, **{key: "" for key in ("arguments", "input") if key in item}}
        kept.begun = shown = _as_custom(shown) if kept.custom else shown
        yield {**event, "output_index": kept.index, "item": shown}
        if begun:
            name = "custom_tool_call_input" if "input" in item else "function_call_arguments"
            delta = {"type": f"response.{name}.delta", "item_id": kept.id, "output_index": kept.index, "delta": begun}
            yield from self._arguments(delta, kept)

    def _arguments(self, event: Event, item: _Item) -> Iterator[Event]:
        """The arguments of a call. Without any they are an empty object; told only at the end, they are told before."""
        if event["type"] == _ARGUMENTS_DONE:
            event["arguments"] = event.get("arguments") or "{}"
            if not item.said:
                yield from self._arguments(
                    {**_without(event, "arguments"), "type": _ARGUMENTS_DELTA, "delta": event["arguments"]}, item
                )
            yield from _input_done(event, item) if item.custom else [event]
        elif event["delta"]:
            item.said = True
            if not item.custom:  # the text in these arguments is told at once, when they are complete
                yield event

    def _part(self, event: Event, item: _Item, logprobs: list[Event], annotations: list[Event]) -> Iterator[Event]:
        """An event of a part of a message or of reasoning."""
        kind, place = event["type"], event.get("content_index")
        kept = item.parts.setdefault(place, {"logprobs": [], "annotations": []})
        if kind == "response.output_text.delta" and logprobs:
            kept["logprobs"] += logprobs
            event["logprobs"] = logprobs
        elif kind == "response.output_text.done":
            if kept["logprobs"]:
                event["logprobs"] = kept["logprobs"]
            for number, annotation in enumerate(_placed(annotations, event["text"])):
                kept["annotations"].append(annotation)
                about = {name: event[name] for name in ("item_id", "output_index", "content_index")}
                yield {
                    "type": "response.output_text.annotation.added",
                    **about,
                    "annotation_index": number,
                    "annotation": annotation,
                }
        elif kind == "response.content_part.done":
            _complete(event["part"], kept)
        yield event

    def _finished(self, event: Event) -> Iterator[Event]:
        item = self._named(event["item"])
        kept = self._items.get(item.get("id"))
        if kept is None:
            return
        made = {**item, "id": kept.id}
        if "arguments" in made:
            made["arguments"] = made["arguments"] or "{}"
        if made["type"] == "message":
            for place, part in enumerate(made["content"]):
                _complete(part, kept.parts.get(place, {}))
        if made["type"] == "reasoning":
            made.setdefault("status", "completed")
        if kept.custom:
            made = _as_custom(made)
        self._done[kept.index] = made
        yield {**event, "output_index": kept.index, "item": made}


def _complete(part: Event, kept: dict[str, Any]) -> None:
    """Put into a part of a message what the library left out."""
    if part.get("type") == "output_text":
        part["annotations"] = part.get("annotations") or kept.get("annotations") or []
        part["logprobs"] = kept.get("logprobs") or part.get("logprobs") or []


def _placed(annotations: list[Event], text: str) -> Iterator[Event]:
    """The sources with their place in the text: where `[1]` refers to them, else at its end."""
    for number, annotation in enumerate(annotations, 1):
        mark = f"[{number}]"
        start = text.find(mark)
        where = (start, start + len(mark)) if start >= 0 else (len(text), len(text))
        yield {"start_index": where[0], "end_index": where[1], **annotation}


def _input_done(event: Event, item: _Item) -> Iterator[Event]:
    """The input of a custom tool, once it is complete."""
    text = from_arguments(event["arguments"])
    about = {"item_id": item.id, "output_index": item.index}
    yield {"type": "response.custom_tool_call_input.delta", **about, "delta": text}
    yield {"type": "response.custom_tool_call_input.done", **about, "input": text}


def _as_custom(item: Event) -> Event:
    """The call of a custom tool that a function call stands for."""
    text = from_arguments(item["arguments"]) if item["arguments"] else ""
    return {**_without(item, "arguments"), "type": "custom_tool_call", "input": text}


def _without(event: Event, *names: str) -> Event:
    return {name: value for name, value in event.items() if name not in names}
