"""The fold: no events, in no order, make a response unreadable, and looking at it in between changes nothing."""

from __future__ import annotations

import copy
from typing import Any

from server.protocol import jsontext
from server.protocol.fold import Fold, dumps
from server.protocol.lifecycle import Status
from server.protocol.snapshot import DEFAULTS, Identity, fill_foreign, response_object
from tests.fuzz.material import Material

_KINDS = (
    *("output_item.added", "output_item.done", "content_part.added", "content_part.done", "output_text.delta"),
    *("output_text.done", "output_text.annotation.added", "refusal.delta", "refusal.done", "reasoning_text.delta"),
    *("reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.done"),
    *("function_call_arguments.delta", "function_call_arguments.done", "custom_tool_call_input.delta"),
    *("code_interpreter_call_code.delta", "apply_patch_call_operation_diff.delta", "audio.transcript.delta"),
    *("shell_call_command.added", "shell_call_command.delta", "shell_call_command.done"),
    *("image_generation_call.partial_image", "web_search_call.searching", "mcp_call.completed", "new"),
)
_KEYS = (
    *("item", "part", "delta", "content", "summary", "text", "type", "status", "action", "commands", "command"),
    *("operation", "annotation", "annotations", "logprobs", "arguments", "tools", "usage", "metadata", "error"),
    *("input_tokens_details", "format", "reasoning", "id", "refusal", "transcript", "diff", "name", "server_url"),
)
_WORDS = ("message", "output_text", "output_audio", "in_progress", "function", "json_schema", "https://[", "mcp")
_INDEXES = ("output_index", "content_index", "summary_index", "annotation_index", "command_index")


def fuzz(data: bytes) -> None:
    material = Material(data)
    events = [_event(material) for _ in material.times(24)]
    fold, looked_at = Fold(), Fold()
    for event in events:
        fold.apply(copy.deepcopy(event))
        looked_at.apply(copy.deepcopy(event))
        jsontext.loads(dumps(looked_at.output))
    assert dumps(fold.output) == dumps(looked_at.output)
    output = jsontext.loads(dumps(fold.output))
    request, upstream = material.object((*DEFAULTS, *_KEYS), _WORDS), material.object((*DEFAULTS, *_KEYS), _WORDS)
    made = response_object(Identity("id", 1, request), material.pick(tuple(Status)), upstream, output=output)
    assert made.keys() >= DEFAULTS.keys()
    assert all(made[name] is not None for name, default in DEFAULTS.items() if default is not None)
    fill_foreign(upstream, request)
    jsontext.dumps([made, upstream])


def _event(material: Material) -> dict[str, Any]:
    made = material.object(_KEYS, _WORDS, depth=4)
    made["type"] = f"response.{material.pick(_KINDS)}"
    made |= {name: material.pick((0, 0, 0, 1, 2, 10**20, -1, None, True, "0", 0.0)) for name in _INDEXES}
    if material.number(2):
        made["item"] = material.object(_KEYS, _WORDS, depth=4)
    return made
