"""Reads Anthropic's Messages as they really come, and gives events of the form that the library takes.

Blocks that the library does not know are kept aside until they are complete, and become items: calls of MCP servers, of
the code interpreter, and pages that were fetched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from server.protocol import jsontext
from server.protocol.dialects.blocks import Block, Blocks
from server.protocol.dialects.fields import list_in, mark_in, object_in, objects_in, text_in
from server.protocol.dialects.finish import Finish, Usage, finish_for, messages_usage
from server.protocol.dialects.reading import Reading
from server.protocol.reasons import Fields, reason_in

_UNENDED: Block = {"stop_reason": None, "stop_sequence": None}
_SAID = {
    "text": {"text_delta": "text"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "redacted_thinking": {},
    "tool_use": {"input_json_delta": "partial_json"},
    "server_tool_use": {"input_json_delta": "partial_json"},
    "web_search_tool_result": {},
}
"""The blocks that the library knows, each with its deltas and the field in which they say something."""
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

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        """What tells the ids that we give to calls without one from those of other answers."""
        self._count = 0
        """How many blocks have begun."""
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
        self._kinds: dict[str | None, str] = {}
        """The types of these blocks, by the provider's index."""
        self._open: dict[str | None, _Call] = {}
        """Calls whose input is still coming, by index."""
        self._calls: dict[str | None, _Call] = {}
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
                return self._start(object_in(event, "message"))
            case "content_block_start":
                return self._block(mark_in(event, "index"), object_in(event, "content_block"))
            case "content_block_delta":
                return self._delta(mark_in(event, "index"), object_in(event, "delta"))
            case "content_block_stop":
                return self._stop(mark_in(event, "index"))
            case "message_delta":
                self._end(object_in(event, "delta"), object_in(event, "usage"))
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
            *self._start({}),
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
        for index, block in enumerate(objects_in(message, "content")):
            made += self._block(str(index), block) + self._stop(str(index))
        self._end(message, {})
        self.over = True
        return made

    def _end(self, delta: Block, usage: Block) -> None:
        reason = delta.get("stop_reason")
        self._reason = reason if isinstance(reason, str) else self._reason
        self._details = object_in(delta, "stop_details") or self._details
        self._usage |= _counts(usage)

    def _block(self, index: str | None, block: Block) -> list[Reading]:
        begun, kind = self._start({}), text_in(block, "type")
        is_search = kind == "server_tool_use" and block.get("name") == "web_search"
        if kind in _KNOWN or is_search or kind == "web_search_tool_result":
            self._kinds[index] = kind
            empty, deltas = _emptied(block, kind, f"call_{self._seed}{self._count:x}")
            self._count += 1
            begun += self._passed.begin(index, empty)
            return begun + [reading for delta in deltas for reading in self._passed.add(index, delta)]
        if kind in ("server_tool_use", "mcp_tool_use"):
            self._open[index] = self._calls[mark_in(block, "id")] = _Call(block)
        elif (call := self._calls.pop(mark_in(block, "tool_use_id"), None)) and (item := _item(call, block)):
            begun.append(Reading(item, is_item=True))
        return begun

    def _delta(self, index: str | None, delta: Block) -> list[Reading]:
        if (call := self._open.get(index)) is not None:
            call.pieces.append(text_in(delta, "partial_json"))
        elif index in self._passed:
            return [reading for one in _deltas(self._kinds[index], delta) for reading in self._passed.add(index, one)]
        return []

    def _stop(self, index: str | None) -> list[Reading]:
        self._open.pop(index, None)
        return self._passed.end(index)


def _deltas(kind: str, delta: Block) -> list[Block]:
    """The delta, if it says something and belongs to a block of this type."""
    said = text_in(delta, "type")
    if kind == "text" and said == "citations_delta":
        return _cited([delta.get("citation")])
    name = _SAID[kind].get(said, "")
    text = text_in(delta, name)
    return [{"type": said, name: text}] if text else []


def _emptied(block: Block, kind: str, call_id: str) -> tuple[Block, list[Block]]:
    """A block as it begins, and what it holds already as deltas: the library reads only these."""
    said = [{"type": delta, name: text} for delta, name in _SAID[kind].items() if (text := text_in(block, name))]
    match kind:
        case "text":
            return {"type": kind, "text": ""}, said + _cited(list_in(block, "citations"))
        case "thinking":
            return {"type": kind, "thinking": "", "signature": ""}, said
        case "redacted_thinking":
            return {"type": kind, "data": text_in(block, "data")}, []
        case "web_search_tool_result":
            # Of a search that failed, the content is the error.
            found = [_found(page) for page in objects_in(block, "content") if text_in(page, "url")]
            return {"type": kind, "tool_use_id": mark_in(block, "tool_use_id") or "", "content": found}, []
    given = block.get("input")
    said = [{"type": "input_json_delta", "partial_json": jsontext.dumps(given).decode()}] if given else []
    return {"type": kind, "id": mark_in(block, "id") or call_id, "name": text_in(block, "name"), "input": {}}, said


def _found(page: Block) -> Block:
    texts = {name: text_in(page, name) for name in ("url", "title", "encrypted_content")}
    return {"type": "web_search_result", **texts, "page_age": text_in(page, "page_age") or None}


def _cited(citations: list[Any]) -> list[Block]:
    return [{"type": "citations_delta", "citation": one} for one in citations if isinstance(one, dict)]


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


def _counts(usage: Any) -> Usage:
    """The numbers that are told. A later event may leave out what an earlier one has told."""
    return {name: value for name, value in usage.items() if type(value) is int} if isinstance(usage, dict) else {}
