"""Reads Anthropic's Messages as they really come, and gives events of the form that the library takes.

Blocks that the library does not know are kept aside until they are complete, and become items: calls of MCP servers, of
the code interpreter, and pages that were fetched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from server.protocol import jsontext
from server.protocol.dialects.blocks import Block, Blocks
from server.protocol.dialects.finish import Finish, Usage, finish_for, messages_usage
from server.protocol.dialects.reading import Reading
from server.protocol.reasons import Fields, reason_in

_DELTAS = frozenset({"text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta"})
_UNENDED: Block = {"stop_reason": None, "stop_sequence": None}
_KNOWN = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


@dataclass
class _Call:
    """A call of a tool that the provider ran itself."""

    block: Block
    pieces: list[str] = field(default_factory=list)

    @property
    def input(self) -> str:
        return "".join(self.pieces) or jsontext.dumps(self.block.get("input") or {}).decode()


class MessagesReader:
    """Reads one answer, streamed or whole."""

    def __init__(self) -> None:
        self.over = False
        self.failure: Fields | None = None
        self.annotations: list[Block] = []
        """Empty: the library translates Anthropic's citations itself."""
        self._begun = False
        self._reason: str | None = None
        self._details: Block | None = None
        self._usage: Usage = {}
        self._passed = Blocks()
        """The blocks that the library is told of."""
        self._open: dict[Any, _Call] = {}
        """Calls whose input is still coming, by index."""
        self._calls: dict[Any, _Call] = {}
        """Calls whose outcome is awaited, by id."""

    @property
    def finish(self) -> Finish | None:
        """How the message ended, once it is known. One that is over without a reason ended normally."""
        if self._reason is not None:
            return finish_for(self._reason, self._details)
        return Finish("completed") if self.over else None

    @property
    def usage(self) -> Usage | None:
        return messages_usage(self._usage) if self._usage else None

    def read(self, event: Block) -> list[Reading]:
        """What one event says, or a whole message."""
        match event.get("type"):
            case "message_start":
                return self._start(_dict(event, "message"))
            case "content_block_start":
                return self._block(event.get("index"), _dict(event, "content_block"))
            case "content_block_delta":
                return self._delta(event.get("index"), _dict(event, "delta"))
            case "content_block_stop":
                return self._stop(event.get("index"))
            case "message_delta":
                self._end(_dict(event, "delta"), _dict(event, "usage"))
            case "message_stop":
                self.over = True
            case "message":
                return self._whole(event)
            case "error":
                self.failure = reason_in(event) or {}
            case _ if event.get("error"):
                self.failure = reason_in(event) or {}
        return []

    def close(self) -> list[Reading]:
        """What makes the library close what is open."""
        usage = {"input_tokens": 0, "output_tokens": 0}
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return [
            *self._passed.close(),
            Reading({"type": "message_delta", "delta": delta, "usage": usage}),
            Reading({"type": "message_stop"}),
        ]

    def _start(self, message: Block) -> list[Reading]:
        self._usage |= _counts(message.get("usage"))
        if self._begun:
            return []
        self._begun = True
        made: Block = {"id": "msg", "type": "message", "role": "assistant", "content": [], "model": ""}
        usage = {"input_tokens": 0, "output_tokens": 0}
        return [Reading({"type": "message_start", "message": {**made, **_UNENDED, "usage": usage}})]

    def _whole(self, message: Block) -> list[Reading]:
        made = self._start(message)
        for index, block in enumerate(message.get("content") or ()):
            if isinstance(block, dict):
                made += self._block(index, block) + self._stop(index)
        self._end(message, {})
        self.over = True
        return made

    def _end(self, delta: Block, usage: Block) -> None:
        reason = delta.get("stop_reason")
        self._reason = reason if isinstance(reason, str) else self._reason
        self._details = _dict(delta, "stop_details") or self._details
        self._usage |= _counts(usage)

    def _block(self, index: Any, block: Block) -> list[Reading]:
        kind, name = str(block.get("type")), block.get("name")
        if kind in _KNOWN or (kind == "server_tool_use" and name == "web_search"):
            empty, deltas = _emptied(block)
            begun = self._passed.begin(index, empty)
            return begun + [reading for delta in deltas for reading in self._passed.add(index, delta)]
        if kind == "web_search_tool_result":
            found = block.get("content")  # of a search that failed it is the error
            return self._passed.begin(index, {**block, "content": found if isinstance(found, list) else []})
        if kind in ("server_tool_use", "mcp_tool_use"):
            self._open[index] = self._calls[block.get("id")] = _Call(block)
        elif (call := self._calls.pop(block.get("tool_use_id"), None)) is not None:
            item = _item(call, block)
            return [Reading(item, is_item=True)] if item else []
        return []

    def _delta(self, index: Any, delta: Block) -> list[Reading]:
        if (call := self._open.get(index)) is not None:
            call.pieces.append(str(delta.get("partial_json") or ""))
        elif index in self._passed and delta.get("type") in _DELTAS:
            return self._passed.add(index, delta)
        return []

    def _stop(self, index: Any) -> list[Reading]:
        self._open.pop(index, None)
        return self._passed.end(index)


def _emptied(block: Block) -> tuple[Block, list[Block]]:
    """A block as it begins, and what it holds already as deltas: the library reads only these."""
    match block["type"]:
        case "text":
            cited = [
                {"type": "citations_delta", "citation": one}
                for one in block.get("citations") or ()
                if isinstance(one, dict)
            ]
            said = [{"type": "text_delta", "text": block["text"]}] if block.get("text") else []
            return {"type": "text", "text": ""}, said + cited
        case "thinking":
            parts = (("thinking_delta", "thinking"), ("signature_delta", "signature"))
            deltas = [{"type": kind, name: block[name]} for kind, name in parts if block.get(name)]
            return {"type": "thinking", "thinking": "", "signature": ""}, deltas
        case "redacted_thinking":
            return block, []
    given = block.get("input")
    said = [{"type": "input_json_delta", "partial_json": jsontext.dumps(given).decode()}] if given else []
    return {"type": block["type"], "id": block.get("id"), "name": block.get("name"), "input": {}}, said


def _item(call: _Call, result: Block) -> Block | None:
    """The item for a finished call; None if the Responses API has none of its kind."""
    kind, content = str(result.get("type")), result.get("content")
    if kind == "mcp_tool_result":
        text = _text_in(content)
        failed = bool(result.get("is_error"))
        return {
            "type": "mcp_call",
            "name": call.block.get("name"),
            "server_label": call.block.get("server_name"),
            "arguments": call.input,
            "output": None if failed else text,
            "error": text if failed else None,
            "status": "failed" if failed else "completed",
        }
    given = _parsed(call.input)
    outcome = content if isinstance(content, dict) else {}
    if "code_execution" in kind:
        logs = "".join(str(outcome.get(name) or "") for name in ("stdout", "stderr"))
        return {
            "type": "code_interpreter_call",
            "code": str(given.get("code") or given.get("command") or ""),
            "container_id": "",
            "outputs": [{"type": "logs", "logs": logs}] if logs else [],
            "status": "failed" if "error_code" in outcome else "completed",
        }
    if kind == "web_fetch_tool_result":
        action = {"type": "open_page", "url": given.get("url")}
        return {"type": "web_search_call", "action": action, "status": "completed"}
    return None


def _parsed(text: str) -> Block:
    try:
        value = jsontext.loads(text.encode("utf-8", "replace"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text_in(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _dict(holder: Block, name: str) -> Block:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def _counts(usage: Any) -> Usage:
    """The numbers that are told. A later event may leave out what an earlier one has told."""
    return {name: value for name, value in usage.items() if type(value) is int} if isinstance(usage, dict) else {}
