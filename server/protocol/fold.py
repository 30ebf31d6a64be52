"""The fold: from the events of a log to the growing `output` of its response.

The fold applies every event that carries content, and ignores all others and malformed ones, so that an upstream's
mistake does not make a response unreadable. `output_item.done` replaces everything folded into its item before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from server.protocol import jsontext

_PROGRESS = re.compile(
    r"response\.\w+_call\.(in_progress|searching|generating|interpreting|completed|incomplete|failed)"
)


class Text:
    """A string that grows by deltas. Adding one takes time in proportion to the delta, not to the whole string."""

    __slots__ = ("_parts",)

    def __init__(self, start: str = "") -> None:
        self._parts = [start]

    def add(self, delta: str) -> None:
        self._parts.append(delta)

    def __str__(self) -> str:
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0]


def dumps(value: Any) -> bytes:
    """JSON of an object that may hold growing texts."""
    return jsontext.dumps(value, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, Text):
        return str(value)
    raise TypeError(type(value).__name__)


class Fold:
    """The output of one response as of the last applied event."""

    def __init__(self) -> None:
        self._items: dict[int, dict[str, Any]] = {}
        self._placed: dict[tuple[int, str, int], int] = {}
        """The position of each part in its list.

        It differs from the part's index if an upstream does not restart its indexes with each item.
        """

    @property
    def output(self) -> list[dict[str, Any]]:
        """The items in order. Later events change these objects: encode them with `dumps` before applying another."""
        return [item for _, item in sorted(self._items.items())]

    def apply(self, event: dict[str, Any]) -> None:
        """Apply one event. Never raises. The fold keeps and changes objects of the event, so it must not be reused."""
        kind = event.get("type")
        if not isinstance(kind, str):
            return
        fold = _FOLDS.get(kind)
        if fold is not None:
            fold(self, event)
        elif (found := _PROGRESS.fullmatch(kind)) and (item := self._item(event)) and "status" in item:
            item["status"] = found[1]

    def _item(self, event: dict[str, Any]) -> dict[str, Any] | None:
        index = event.get("output_index")
        return self._items.get(index) if type(index) is int else None

    def _put_item(self, event: dict[str, Any]) -> None:
        index, item = event.get("output_index"), event.get("item")
        if type(index) is int and index >= 0 and isinstance(item, dict):
            self._items[index] = item

    def _part(self, event: dict[str, Any], listed: str, empty: dict[str, Any]) -> dict[str, Any] | None:
        """The part that a delta belongs to; it is created if the upstream did not announce it."""
        item = self._item(event)
        if item is None:
            return None
        parts = _list(item, listed)
        place = self._place(event, listed, parts)
        if place is None:
            return None
        if place == len(parts):
            parts.append(dict(empty))
        part = parts[place]
        return part if isinstance(part, dict) else None

    def _put_part(self, event: dict[str, Any], listed: str) -> None:
        item, part = self._item(event), event.get("part")
        if item is None or not isinstance(part, dict):
            return
        parts = _list(item, listed)
        place = self._place(event, listed, parts)
        if place is not None:
            parts[place : place + 1] = [part]

    def _place(self, event: dict[str, Any], listed: str, parts: list[Any]) -> int | None:
        """The position of the event's part in its item's list; the list's length if it must be appended."""
        index = event.get(_INDEXES[listed])
        if type(index) is not int or index < 0:
            return None
        place = self._placed.setdefault((event["output_index"], listed, index), min(index, len(parts)))
        return min(place, len(parts))

    def _annotate(self, event: dict[str, Any]) -> None:
        part, index = self._part(event, "content", _OUTPUT_TEXT), event.get("annotation_index")
        if part is None or type(index) is not int or "annotation" not in event:
            return
        annotations = _list(part, "annotations")
        if 0 <= index < len(annotations):
            annotations[index] = event["annotation"]
        else:
            annotations.append(event["annotation"])

    def _diff(self, event: dict[str, Any]) -> dict[str, Any] | None:
        operation = (self._item(event) or {}).get("operation")
        return operation if isinstance(operation, dict) else None

    def _audio(self, _event: dict[str, Any]) -> dict[str, Any] | None:
        """Audio events name no item: they belong to the newest message."""
        messages = [item for item in self.output if item.get("type") == "message"]
        if not messages:
            return None
        content = _list(messages[-1], "content")
        for part in reversed(content):
            if isinstance(part, dict) and part.get("type") == "output_audio":
                return part
        content.append({"type": "output_audio", "data": "", "transcript": ""})
        last: dict[str, Any] = content[-1]
        return last

    def _command(self, event: dict[str, Any]) -> tuple[list[Any], int] | None:
        """The commands of a shell call, and the position of the event's command in them."""
        action, index = (self._item(event) or {}).get("action"), event.get("command_index")
        if not isinstance(action, dict) or type(index) is not int or index < 0:
            return None
        commands = _list(action, "commands")
        return commands, min(index, len(commands))

    def _put_command(self, event: dict[str, Any]) -> None:
        found, command = self._command(event), event.get("command")
        if found is not None and isinstance(command, str):
            commands, index = found
            commands[index : index + 1] = [command]

    def _add_to_command(self, event: dict[str, Any]) -> None:
        found, delta = self._command(event), event.get("delta")
        if found is None or not isinstance(delta, str):
            return
        commands, index = found
        begun = commands[index] if index < len(commands) else ""
        if not isinstance(begun, Text):
            begun = Text(begun if isinstance(begun, str) else "")
        commands[index : index + 1] = [begun]
        begun.add(delta)

    def _picture(self, event: dict[str, Any]) -> None:
        item, picture = self._item(event), event.get("partial_image_b64")
        if item is not None and isinstance(picture, str):
            item["result"] = picture


_INDEXES = {"content": "content_index", "summary": "summary_index"}
_OUTPUT_TEXT = {"type": "output_text", "text": "", "annotations": []}


def _list(holder: dict[str, Any], name: str) -> list[Any]:
    found = holder.get(name)
    if not isinstance(found, list):
        found = holder[name] = []
    return found


_Place = Callable[[Fold, dict[str, Any]], dict[str, Any] | None]
_Apply = Callable[[Fold, dict[str, Any]], None]


def _adds(place: _Place, field: str) -> _Apply:
    """A function that applies a delta: it appends to a text."""

    def apply(fold: Fold, event: dict[str, Any]) -> None:
        holder, delta = place(fold, event), event.get("delta")
        if holder is None or not isinstance(delta, str):
            return
        text = holder.get(field)
        if not isinstance(text, Text):
            text = holder[field] = Text(text if isinstance(text, str) else "")
        text.add(delta)
        logprobs = event.get("logprobs")
        if isinstance(logprobs, list) and logprobs:
            _list(holder, "logprobs").extend(logprobs)

    return apply


def _sets(place: _Place, field: str, source: str | None = None) -> _Apply:
    """A function that applies the end of a text: it replaces what the deltas made."""

    def apply(fold: Fold, event: dict[str, Any]) -> None:
        holder, text = place(fold, event), event.get(source or field)
        if holder is not None and isinstance(text, str):
            holder[field] = text

    return apply


def _content(empty: dict[str, Any]) -> _Place:
    return lambda fold, event: fold._part(event, "content", empty)  # noqa: SLF001


_TEXT = _content(_OUTPUT_TEXT)
_REFUSAL = _content({"type": "refusal", "refusal": ""})
_REASONING = _content({"type": "reasoning_text", "text": ""})


def _SUMMARY(fold: Fold, event: dict[str, Any]) -> dict[str, Any] | None:  # noqa: N802
    return fold._part(event, "summary", {"type": "summary_text", "text": ""})  # noqa: SLF001


_ITEM: _Place = Fold._item  # noqa: SLF001
_DIFF: _Place = Fold._diff  # noqa: SLF001
_AUDIO: _Place = Fold._audio  # noqa: SLF001

_FOLDS: dict[str, _Apply] = {
    "response.output_item.added": Fold._put_item,  # noqa: SLF001
    "response.output_item.done": Fold._put_item,  # noqa: SLF001
    "response.content_part.added": lambda fold, event: fold._put_part(event, "content"),  # noqa: SLF001
    "response.content_part.done": lambda fold, event: fold._put_part(event, "content"),  # noqa: SLF001
    "response.output_text.delta": _adds(_TEXT, "text"),
    "response.output_text.done": _sets(_TEXT, "text"),
    "response.output_text.annotation.added": Fold._annotate,  # noqa: SLF001
    "response.refusal.delta": _adds(_REFUSAL, "refusal"),
    "response.refusal.done": _sets(_REFUSAL, "refusal"),
    "response.reasoning_text.delta": _adds(_REASONING, "text"),
    "response.reasoning_text.done": _sets(_REASONING, "text"),
    "response.reasoning_summary_part.added": lambda fold, event: fold._put_part(event, "summary"),  # noqa: SLF001
    "response.reasoning_summary_part.done": lambda fold, event: fold._put_part(event, "summary"),  # noqa: SLF001
    "response.reasoning_summary_text.delta": _adds(_SUMMARY, "text"),
    "response.reasoning_summary_text.done": _sets(_SUMMARY, "text"),
    "response.function_call_arguments.delta": _adds(_ITEM, "arguments"),
    "response.function_call_arguments.done": _sets(_ITEM, "arguments"),
    "response.mcp_call_arguments.delta": _adds(_ITEM, "arguments"),
    "response.mcp_call_arguments.done": _sets(_ITEM, "arguments"),
    "response.custom_tool_call_input.delta": _adds(_ITEM, "input"),
    "response.custom_tool_call_input.done": _sets(_ITEM, "input"),
    "response.code_interpreter_call_code.delta": _adds(_ITEM, "code"),
    "response.code_interpreter_call_code.done": _sets(_ITEM, "code"),
    "response.apply_patch_call_operation_diff.delta": _adds(_DIFF, "diff"),
    "response.apply_patch_call_operation_diff.done": _sets(_DIFF, "diff"),
    "response.audio.transcript.delta": _adds(_AUDIO, "transcript"),
    "response.audio.transcript.done": _sets(_AUDIO, "transcript"),
    "response.shell_call_command.added": Fold._put_command,  # noqa: SLF001
    "response.shell_call_command.delta": Fold._add_to_command,  # noqa: SLF001
    "response.shell_call_command.done": Fold._put_command,  # noqa: SLF001
    "response.image_generation_call.partial_image": Fold._picture,  # noqa: SLF001
}
