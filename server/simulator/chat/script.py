"""The chunks of a reply, in OpenAI's order, and the object that says the same.

The types of the events are not on the wire; they tell what a chunk is for.
"""

from collections.abc import Iterator

import orjson

from server.simulator.errors import ApiError
from server.simulator.events import Event, interrupted, padding
from server.simulator.reply import CITED_TITLE, CITED_URL, FAILURE, Part, Reply, Usage
from server.simulator.turn import Json

_DONE = Event("done", {})
# How a tool call shows each kind of a call: its type, which is also the name of its object, and the field in that.
_CALLS = {"call": ("function", "arguments"), "custom_call": ("custom", "input")}


def script(reply: Reply) -> Iterator[Event]:
    """All chunks, from the one with the role to `[DONE]`."""
    d = reply.directives
    failed = {**_chunk(reply, {"content": ""}, "error"), "error": _error(reply)["error"]}
    return interrupted(
        _chunks(reply),
        d,
        ends_content=lambda event: event.type == "finish",
        error=lambda: [Event("error", _error(reply)), *([] if d.error_only else [_DONE])],
        failure=lambda: [Event("error", failed), _DONE],
    )


def encode_frame(number: int, event: Event, *, obfuscated: bool) -> bytes:
    """The event as it goes over the wire."""
    if event.type == _DONE.type:
        return b"data: [DONE]\n\n"
    data = orjson.dumps(event.body)
    if obfuscated and event.type != "error":
        data = orjson.dumps({**event.body, "obfuscation": padding(number, len(data))})
    return b"data: %b\n\n" % data


def completion(reply: Reply) -> Json:
    """The answer to a request without a stream."""
    message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    calls: list[Json] = []
    for part in reply.parts():
        match part.kind:
            case "thought":
                message["reasoning_content"] = part.whole
            case "refusal":
                message["refusal"] = part.whole
            case "text":
                message |= {"content": part.whole, "annotations": _annotations(reply, part)}
            case _:
                calls.append(_call(reply, part, len(calls), part.whole))
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}
    return {**_head(reply, "chat.completion"), "choices": [choice], "usage": _usage(reply)}


def _chunks(reply: Reply) -> Iterator[Event]:
    d = reply.directives
    content = None if d.tools or d.custom_tool else ""
    yield Event("delta", _chunk(reply, {"role": "assistant", "content": content, "refusal": None}))
    calls = 0
    for part in reply.parts():
        if part.kind in _CALLS:
            yield from _call_chunks(reply, part, calls)
            calls += 1
            continue
        field = {"thought": "reasoning_content", "refusal": "refusal", "text": "content"}[part.kind]
        for delta in part.deltas:
            yield Event("delta", _chunk(reply, {field: delta}))
        if annotations := _annotations(reply, part):
            yield Event("delta", _chunk(reply, {"annotations": annotations}))
    yield Event("finish", _chunk(reply, {}, _finish_reason(reply)))
    if _counted(reply):
        yield Event("usage", {**_chunk(reply, {}), "choices": [], "usage": _usage(reply)})
    yield _DONE


def _call_chunks(reply: Reply, part: Part, index: int) -> Iterator[Event]:
    opening = {"index": index, **_call(reply, part, index, "")}
    yield Event("delta", _chunk(reply, {"tool_calls": [opening]}))
    kind, field = _CALLS[part.kind]
    for delta in part.deltas:
        yield Event("delta", _chunk(reply, {"tool_calls": [{"index": index, kind: {field: delta}}]}))


def _call(reply: Reply, part: Part, index: int, value: str) -> Json:
    kind, field = _CALLS[part.kind]
    return {"id": reply.item_id("call", index), "type": kind, kind: {"name": part.name, field: value}}


def _annotations(reply: Reply, part: Part) -> list[Json]:
    if not reply.directives.annotations or part.kind != "text":
        return []
    cited = {"start_index": 0, "end_index": len(part.whole), "url": CITED_URL, "title": CITED_TITLE}
    return [{"type": "url_citation", "url_citation": cited}]


def _finish_reason(reply: Reply) -> str:
    d = reply.directives
    if d.content_filter:
        return "content_filter"
    if d.incomplete:
        return "length"
    # A refusal that is told in words ends as any other answer.
    return "tool_calls" if (d.tools or d.custom_tool) and not d.refusal else "stop"


def _chunk(reply: Reply, delta: Json, finish_reason: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {**_head(reply, "chat.completion.chunk"), "choices": [choice]}
    return {**chunk, "usage": None} if _counted(reply) else chunk


def _head(reply: Reply, kind: str) -> Json:
    return {
        "id": reply.id,
        "object": kind,
        "created": int(reply.created_at),
        "model": reply.request["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def _counted(reply: Reply) -> bool:
    """Whether the stream is to tell its usage."""
    return (reply.request.get("stream_options") or {}).get("include_usage") is True


def _usage(reply: Reply) -> Json:
    usage = Usage.of(reply)
    none = dict.fromkeys(("audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"), 0)
    return {
        "prompt_tokens": usage.given,
        "completion_tokens": usage.spent,
        "total_tokens": usage.given + usage.spent,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.thought, **none},
    }


def _error(reply: Reply) -> Json:
    return ApiError(500, FAILURE, code=reply.directives.error_code).body()
