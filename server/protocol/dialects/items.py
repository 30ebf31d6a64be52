"""Input items in the form that the library takes: what it refuses or loses is expressed by something that it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.protocol import jsontext
from server.protocol.dialects.call_ids import fitting
from server.protocol.dialects.losses import Losses
from server.protocol.dialects.manners import Dialect, Manners
from server.protocol.dialects.order import with_outputs_in_place
from server.protocol.dialects.tools import as_arguments

Item = dict[str, Any]

_PASSED_OVER = frozenset(
    {
        *("web_search_call", "file_search_call", "image_generation_call", "code_interpreter_call", "mcp_list_tools"),
        *("mcp_approval_request", "mcp_approval_response", "tool_search_call", "tool_search_output", "program"),
    }
)
"""Items of an earlier turn that only the provider which made them can read; what came of them is in the messages."""


class Items:
    """Prepares the items of one request. Parts that the library would lose are kept aside, to be put back afterwards.

    `aside` maps a text that the library carries through to the part, in the words of Chat Completions. `signatures`
    maps the id of a tool call to the signature that it must carry.
    """

    def __init__(self, manners: Manners, losses: Losses) -> None:
        self._manners = manners
        self._losses = losses
        self.aside: dict[str, Item] = {}
        self.signatures: dict[str, str] = {}
        self._signature: str | None = None
        """The signature of the thinking that came last, for the call that follows."""
        self._turn_begins = 0
        """The place of the last message of the user: what the model thought before that is of no use any more."""

    def prepared(self, given: list[Any]) -> list[Item]:
        users = [place for place, item in enumerate(given) if item.get("role") == "user"]
        self._turn_begins = users[-1] if users else 0
        made = [made for place, item in enumerate(given) for made in self._item(item, place)]
        return with_outputs_in_place(made)

    def _item(self, item: Any, place: int) -> Iterator[Item]:
        kind, where = item.get("type") or ("message" if "role" in item else "item_reference"), f"input[{place}]"
        if kind == "message":
            yield from self._message(item, where)
        elif kind == "reasoning":
            yield from self._reasoning(item, place)
        elif kind == "function_call":
            yield self._call(item.get("call_id"), item.get("name"), _text(item.get("arguments"))) | _space(item)
        elif kind == "custom_tool_call" and not self._takes_custom:
            yield self._call(item.get("call_id"), item.get("name"), as_arguments(item.get("input"))) | _space(item)
        elif kind == "custom_tool_call":
            call_id = fitting(item.get("call_id"), self._manners)
            yield {"type": kind, "call_id": call_id, "name": item.get("name"), "input": item.get("input")} | _space(
                item
            )
        elif kind == "custom_tool_call_output" and self._takes_custom:
            call_id = fitting(item.get("call_id"), self._manners)
            yield {"type": kind, "call_id": call_id, "output": _words(item.get("output"))}
        elif kind == "mcp_call":
            yield from self._mcp(item)
        elif kind not in _PASSED_OVER:
            yield from self._other(item, kind, where)

    @property
    def _takes_custom(self) -> bool:
        return self._manners.dialect is Dialect.CHAT and self._manners.full

    def _message(self, item: Item, where: str) -> Iterator[Item]:
        role, content = item.get("role"), item.get("content")
        if role == "developer" and not (self._manners.dialect is Dialect.CHAT and self._manners.full):
            role = "system"
        if isinstance(content, list):
            content = [
                made for i, part in enumerate(content) for made in self._part(part, role, f"{where}.content[{i}]")
            ]
            content = [part for part in content if part.get("text") != ""]
        # An answer without words is none, and Messages refuse any text without words.
        if content or not (role == "assistant" or self._manners.dialect is Dialect.MESSAGES):
            yield {"type": "message", "role": role, "content": content if content is not None else ""}

    def _part(self, part: Any, role: Any, where: str) -> Iterator[Item]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"):
            text = part.get("refusal" if kind == "refusal" else "text") or ""
            yield _output_text(text) if role == "assistant" else {"type": "input_text", "text": text}
        elif kind == "input_image" and part.get("image_url"):
            detail = part.get("detail")
            yield {"type": kind, "image_url": part["image_url"], **({"detail": detail} if detail else {})}
        elif kind == "input_file" and (part.get("file_data") or (part.get("file_url") and self._takes_urls)):
            names = ("filename", "file_data", "file_url")
            yield {"type": kind, **{name: part[name] for name in names if part.get(name)}}
        elif kind in ("input_file", "input_audio") and (kept := self._kept_aside(kind, part)):
            yield kept
        else:
            what = f"content of type '{kind}'" + next(
                (f" with {n}" for n in ("file_id", "file_url") if n in (part or ())), ""
            )
            self._losses.lose(where, what)

    @property
    def _takes_urls(self) -> bool:
        return self._manners.dialect is Dialect.MESSAGES

    def _kept_aside(self, kind: str, part: Item) -> Item | None:
        if self._manners.dialect is not Dialect.CHAT:
            return None
        if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
            made = {"type": "input_audio", "input_audio": part["input_audio"]}
        elif part.get("file_id") and self._manners.full:
            made = {"type": "file", "file": {"file_id": part["file_id"]}}
        else:
            return None
        mark = f"\x00{len(self.aside)}\x00"
        self.aside[mark] = made
        return {"type": "input_text", "text": mark}

    def _reasoning(self, item: Item, place: int) -> Iterator[Item]:
        """Reasoning that the provider can use: Messages need its signature, most Chat providers refuse any."""
        summary = [part for part in item.get("summary") or () if isinstance(part, dict) and part.get("text")]
        encrypted = item.get("encrypted_content")
        if self._manners.dialect is Dialect.MESSAGES and encrypted:
            yield {"type": "reasoning", "summary": summary, "encrypted_content": encrypted}
        elif self._manners.signed_calls and encrypted:
            self._signature = encrypted
        elif self._manners.reasoning_back and summary and place > self._turn_begins:
            yield {"type": "reasoning", "summary": summary}

    def _other(self, item: Item, kind: str, where: str) -> Iterator[Item]:
        """Calls of tools that the client runs, such as a shell, become function calls; the rest can't be said."""
        call_id = item.get("call_id")
        if isinstance(call_id, str) and kind.endswith("_output"):
            output = item.get("output")
            if isinstance(output, list) and all("type" in part for part in output):
                output = [made for i, part in enumerate(output) for made in self._part(part, "tool", f"{where}[{i}]")]
            yield self._outcome(call_id, _output(output))
        elif isinstance(call_id, str) and kind.endswith("_call"):
            told: Any = next((item[name] for name in ("arguments", "action", "operation") if name in item), {})
            yield self._call(call_id, item.get("name") or kind.removesuffix("_call"), _text(told))
        else:
            self._losses.lose(where, f"an item of type '{kind}'")

    def _mcp(self, item: Item) -> Iterator[Item]:
        """A finished call of an MCP tool, told as a function call."""
        call_id = item.get("call_id") or item.get("id")
        if not call_id or (item.get("output") is None and item.get("error") is None):
            return
        yield self._call(call_id, item.get("name"), _text(item.get("arguments")))
        yield self._outcome(call_id, _text(item.get("output") or item["error"]))

    def _call(self, call_id: Any, name: Any, arguments: str) -> Item:
        fits = fitting(call_id, self._manners)
        if self._signature is not None:
            self.signatures[fits], self._signature = self._signature, None
        return {"type": "function_call", "call_id": fits, "name": name, "arguments": arguments}

    def _outcome(self, call_id: Any, output: Any) -> Item:
        return {"type": "function_call_output", "call_id": fitting(call_id, self._manners), "output": output}


def _space(call: Item) -> Item:
    return {"namespace": call["namespace"]} if call.get("namespace") else {}


def _output_text(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _output(output: Any) -> Any:
    is_content = isinstance(output, list) and output and all("type" in part for part in output)
    return output if is_content else "" if output == [] else _text(output)


def _words(output: Any) -> str:
    """An output that can be told as text alone."""
    if isinstance(output, list) and all(isinstance(part.get("text"), str) for part in output):
        return "".join(part["text"] for part in output)
    return _text(output)


def _text(value: Any) -> str:
    """The value as it is written into a string."""
    if isinstance(value, str):
        return value
    return "" if value is None else jsontext.dumps(value).decode()
