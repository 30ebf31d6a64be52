"""Streams and exchanges of our own writing, in the form of recordings of real traffic, so that everybody has some.

A stream is a list of events, an exchange a list of pairs of request and answer. They show what a provider sends for
each kind of output item, in its order, with texts of ours. Sources of the forms: OpenAI's OpenAPI description and SDKs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 34,
    "output_tokens_details": {"reasoning_tokens": 8},
    "total_tokens": 46,
}


def response_object(response_id: str, status: str, output: Sequence[Json] = (), **fields: Any) -> Json:
    """A response as OpenAI shows it, with every key."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": 1771000000,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "gpt-5.2-2026-01-01",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "low", "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": USAGE if status == "completed" else None,
        "user": None,
        "metadata": {},
        **fields,
    }


class Script:
    """Writes down the events of one response, in order."""

    def __init__(self, response_id: str) -> None:
        self.response_id = response_id
        self.output: list[Json] = []
        self.events: list[Json] = []
        self._add("response.created", response=response_object(response_id, "in_progress"))
        self._add("response.in_progress", response=response_object(response_id, "in_progress"))

    def _add(self, kind: str, **fields: Any) -> None:
        self.events.append({"type": kind, "sequence_number": len(self.events), **fields})

    def item(self, announced: Json, done: Json, *between: tuple[str, Json]) -> None:
        """An output item: how it is announced, what is said of it meanwhile, and what it is in the end."""
        place = {"output_index": len(self.output), "item_id": announced["id"]}
        self._add("response.output_item.added", output_index=len(self.output), item=announced)
        for kind, fields in between:
            self._add(f"response.{kind}", **place, **fields)
        self._add("response.output_item.done", output_index=len(self.output), item={**announced, **done})
        self.output.append({**announced, **done})

    def message(self, *words: str, annotations: Sequence[Json] = (), **fields: Any) -> None:
        """A text, a delta for each word."""
        text, start = "".join(words), {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        part = {**start, "annotations": list(annotations), "text": text}
        item = {"id": f"msg_{len(self.output)}", "type": "message", "status": "in_progress", "role": "assistant"}
        self.item(
            {**item, "content": [], **fields},
            {"status": "completed", "content": [part]},
            ("content_part.added", {"content_index": 0, "part": start}),
            *(("output_text.delta", {"content_index": 0, "delta": word, "logprobs": []}) for word in words),
            *(
                ("output_text.annotation.added", {"content_index": 0, "annotation_index": n, "annotation": annotation})
                for n, annotation in enumerate(annotations)
            ),
            ("output_text.done", {"content_index": 0, "text": text, "logprobs": []}),
            ("content_part.done", {"content_index": 0, "part": part}),
        )

    def reasoning(self, summary: str, encrypted: str) -> None:
        part = {"type": "summary_text", "text": summary}
        self.item(
            {"id": f"rs_{len(self.output)}", "type": "reasoning", "summary": [], "encrypted_content": encrypted},
            {"summary": [part]},
            ("reasoning_summary_part.added", {"summary_index": 0, "part": {**part, "text": ""}}),
            ("reasoning_summary_text.delta", {"summary_index": 0, "delta": summary}),
            ("reasoning_summary_text.done", {"summary_index": 0, "text": summary}),
            ("reasoning_summary_part.done", {"summary_index": 0, "part": part}),
        )

    def end(self, status: str = "completed", **fields: Any) -> list[Json]:
        self._add(f"response.{status}", response=response_object(self.response_id, status, self.output, **fields))
        return self.events


def streamed(kind: str, field: str, *pieces: str) -> list[tuple[str, Json]]:
    """A text that is told in pieces, and then whole."""
    return [*((f"{kind}.delta", {"delta": piece}) for piece in pieces), (f"{kind}.done", {field: "".join(pieces)})]


def web_search() -> list[Json]:
    script = Script("resp_0a01")
    call = {"id": "ws_0", "type": "web_search_call", "status": "in_progress", "action": {"type": "search"}}
    progress = [(f"web_search_call.{state}", Json()) for state in ("in_progress", "searching", "completed")]
    script.item(call, {"status": "completed", "action": {"type": "search", "query": "höchster Berg"}}, *progress)
    cited = {
        "type": "url_citation",
        "start_index": 0,
        "end_index": 7,
        "title": "Mountains",
        "url": "https://example.com",
    }
    script.message("Everest", ", 8\u202f849", " m", " \U0001f3d4", annotations=[cited, {**cited, "end_index": 9}])
    return script.end()


def image() -> list[Json]:
    script = Script("resp_0a02")
    whole = base64.b64encode(b"\x89PNG" + bytes(3000)).decode()
    script.item(
        {"id": "ig_0", "type": "image_generation_call", "status": "in_progress"},
        {"status": "completed", "result": whole, "size": "1024x1024", "revised_prompt": "a unicorn"},
        ("image_generation_call.in_progress", {}),
        ("image_generation_call.generating", {}),
        ("image_generation_call.partial_image", {"partial_image_index": 0, "partial_image_b64": whole[:900]}),
        ("image_generation_call.partial_image", {"partial_image_index": 1, "partial_image_b64": whole}),
        ("image_generation_call.completed", {}),
    )
    script.message("")
    return script.end()


def approval() -> list[Json]:
    script = Script("resp_0a03")
    tools = [{"name": "shorten", "description": None, "annotations": None, "input_schema": {"type": "object"}}]
    script.item(
        {"id": "mcpl_0", "type": "mcp_list_tools", "server_label": "links", "tools": []},
        {"tools": tools},
        ("mcp_list_tools.in_progress", {}),
        ("mcp_list_tools.completed", {}),
    )
    request = {"id": "mcpr_0", "type": "mcp_approval_request", "server_label": "links", "name": "shorten"}
    script.item({**request, "arguments": "{}"}, {})
    return script.end()


def mcp_call() -> list[Json]:
    script = Script("resp_0a04")
    call = {"id": "mcp_0", "type": "mcp_call", "status": "in_progress", "server_label": "links", "name": "shorten"}
    script.item(
        {**call, "arguments": "", "output": None, "error": None},
        {"status": "completed", "arguments": '{"n": 1}', "output": "done"},
        ("mcp_call.in_progress", {}),
        *streamed("mcp_call_arguments", "arguments", '{"n"', ": 1}"),
        ("mcp_call.completed", {}),
    )
    return script.end()


def patch() -> list[Json]:
    script = Script("resp_0a05")
    operation = {"type": "update_file", "path": "notes.md", "diff": ""}
    script.item(
        {
            "id": "apc_0",
            "type": "apply_patch_call",
            "status": "in_progress",
            "call_id": "call_0",
            "operation": operation,
        },
        {"status": "completed", "operation": {**operation, "diff": "@@\n-old\n+new\n"}},
        *streamed("apply_patch_call_operation_diff", "diff", "@@\n", "-old\n", "+new\n"),
    )
    return script.end()


def tools() -> list[Json]:
    """Reasoning, then three calls at once."""
    script = Script("resp_0a06")
    script.reasoning("**Three tools**", encrypted="gAAAAABencrypted==")
    for number, city in enumerate(("Köln", "Łódź")):
        script.item(
            {"id": f"fc_{number}", "type": "function_call", "status": "in_progress", "name": "weather", "arguments": ""}
            | {"call_id": f"call_{number}"},
            {"status": "completed", "arguments": json.dumps({"city": city})},
            *streamed("function_call_arguments", "arguments", *json.dumps({"city": city})),
        )
    script.item(
        {
            "id": "ctc_0",
            "type": "custom_tool_call",
            "status": "in_progress",
            "call_id": "call_9",
            "name": "sql",
            "input": "",
        },
        {"status": "completed", "input": "select 1;"},
        *streamed("custom_tool_call_input", "input", "select", " 1;"),
    )
    return script.end()


def phases() -> list[Json]:
    script = Script("resp_0a07")
    script.message("Let me", " look.", phase="commentary")
    script.message("It is", " 42.", phase="final_answer")
    return script.end()


def too_long() -> list[Json]:
    script = Script("resp_0a08")
    script.message("Once", " upon")
    return script.end("incomplete", incomplete_details={"reason": "max_output_tokens"})


def no_money() -> list[Json]:
    script = Script("resp_0a09")
    error = {"code": "insufficient_quota", "message": "There is no money left in this account."}
    script._add("error", error={"type": "insufficient_quota", "param": None, **error})
    return script.end("failed", error=error)


STREAMS: dict[str, Callable[[], list[Json]]] = {
    "web-search": web_search,
    "image": image,
    "mcp-approval": approval,
    "mcp-call": mcp_call,
    "apply-patch": patch,
    "tools-after-reasoning": tools,
    "phases": phases,
    "incomplete": too_long,
    "error": no_money,
}


def write_recordings(folder: Path) -> None:
    """All of them, as files of the form that recordings of real traffic have."""
    for name, script in STREAMS.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in script()))
    (folder / "background_mode.exchange.json").write_text(json.dumps(_polled()))
    (folder / "background_mode_streaming_starting_after.exchange.json").write_text(json.dumps(_resumed()))


def _polled() -> list[Json]:
    """A run in a provider's own background: created, and looked at twice."""
    response_id = "resp_0b01" + "0" * 44
    script = Script(response_id)
    script.message("2 + 2", " equals 4.")
    states = [
        response_object(response_id, "queued", background=True),
        response_object(response_id, "in_progress", background=True),
        response_object(response_id, "completed", script.output, background=True),
    ]
    asked = [("POST", "/v1/responses"), *[("GET", f"/v1/responses/{response_id}?stream=false")] * 2]
    return [_pair(method, path, json=state) for (method, path), state in zip(asked, states, strict=True)]


def _resumed() -> list[Json]:
    """The stream of such a run, and the same one again behind its first event."""
    script = Script("resp_0b02" + "0" * 44)
    script.message("2 + 2", " equals 4.")
    frames = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in script.end()]
    path = f"/v1/responses/{script.response_id}?starting_after=0&stream=true"
    return [_pair("POST", "/v1/responses", sse="".join(frames)), _pair("GET", path, sse="".join(frames[1:]))]


def _pair(method: str, path: str, **answer: Any) -> Json:
    kind = "text/event-stream; charset=utf-8" if "sse" in answer else "application/json"
    return {
        "request": {"method": method, "path": path, "body": ""},
        "response": {"status": 200, "headers": {"content-type": [kind]}, **answer},
    }
