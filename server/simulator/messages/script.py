"""The events of a reply, in Anthropic's order, and the object that says the same."""

from collections.abc import Iterator
from typing import Any

import orjson

from server.simulator.errors import ApiError
from server.simulator.events import Event, interrupted
from server.simulator.messages.errors import error_body
from server.simulator.messages.signature import sign
from server.simulator.reply import CITED_TITLE, CITED_URL, FAILURE, Part, Reply, Usage, given_tokens
from server.simulator.turn import Json

_ENDS = {"content_block_stop", "message_delta"}
_TIER = {"service_tier": "standard"}
_REFUSED = {"type": "refusal", "category": None, "explanation": "The simulator was told to refuse."}


def script(reply: Reply) -> Iterator[Event]:
    """All events, from message_start to message_stop."""
    error = [Event("error", error_body(ApiError(500, FAILURE, code=reply.directives.error_code)))]
    first = 1 if reply.directives.reasoning else 0
    return interrupted(
        _events(reply),
        reply.directives,
        # A thought is always whole. A refusal has no content that could end.
        ends_content=lambda event: event.type in _ENDS and event.body.get("index", first) >= first,
        error=lambda: error,
        failure=lambda: error,
    )


def encode_frame(_: int, event: Event) -> bytes:
    """The event as it goes over the wire."""
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), orjson.dumps({"type": event.type, **event.body}))


def message(reply: Reply) -> Json:
    """The answer to a request without a stream."""
    content = [_block(reply, part, index) for index, part in enumerate(_parts(reply))]
    usage = {**_usage(reply, Usage.of(reply).spent), **_TIER}
    return {**_head(reply), "content": content, **_ending(reply), "usage": usage}


def _events(reply: Reply) -> Iterator[Event]:
    usage = {**_usage(reply, 1), **_TIER}
    begun = {**_head(reply), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield Event("message_start", {"message": begun})
    index = -1
    for index, part in enumerate(_parts(reply)):
        yield Event("content_block_start", {"index": index, "content_block": _begun(reply, part, index)})
        if index == 0:
            yield Event("ping", {})
        for delta in _deltas(reply, part):
            yield Event("content_block_delta", {"index": index, "delta": delta})
        yield Event("content_block_stop", {"index": index})
    if index < 0:
        yield Event("ping", {})
    usage = _usage(reply, Usage.of(reply).spent)
    yield Event("message_delta", {"delta": _ending(reply), "usage": usage})
    yield Event("message_stop", {})


def _parts(reply: Reply) -> Iterator[Part]:
    """Anthropic refuses without a word: the stop reason says it."""
    return (part for part in reply.parts() if part.kind != "refusal")


def _begun(reply: Reply, part: Part, index: int) -> Json:
    """A block as it is before its deltas."""
    match part.kind:
        case "thought":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "text":
            return {"type": "text", "text": ""}
        case _:
            return {"type": "tool_use", "id": reply.item_id("toolu", index), "name": part.name, "input": {}}


def _block(reply: Reply, part: Part, index: int) -> Json:
    """A block as it is with all its deltas."""
    block = _begun(reply, part, index)
    match part.kind:
        case "thought":
            return {**block, "thinking": part.whole, "signature": sign(part.whole)}
        case "text":
            citations = _citations(reply, part)
            return {**block, "text": part.whole, **({"citations": citations} if citations else {})}
        case _:
            return {**block, "input": _tool_input(part)}


def _deltas(reply: Reply, part: Part) -> Iterator[Json]:
    match part.kind:
        case "thought":
            yield from ({"type": "thinking_delta", "thinking": delta} for delta in part.deltas)
            yield {"type": "signature_delta", "signature": sign(part.whole)}
        case "text":
            yield from ({"type": "text_delta", "text": delta} for delta in part.deltas)
            for citation in _citations(reply, part):
                yield {"type": "citations_delta", "citation": citation}
        case _:
            yield from ({"type": "input_json_delta", "partial_json": delta} for delta in ("", *part.deltas))


def _citations(reply: Reply, part: Part) -> list[Json]:
    if not reply.directives.annotations:
        return []
    cited = {"url": CITED_URL, "title": CITED_TITLE, "cited_text": part.whole[:100]}
    return [{"type": "web_search_result_location", **cited, "encrypted_index": "c2ltdWxhdGVk"}]


def _tool_input(part: Part) -> Any:
    try:
        return orjson.loads(part.whole)
    except orjson.JSONDecodeError:
        # It was cut short.
        return {}


def _ending(reply: Reply) -> Json:
    d = reply.directives
    if d.refusal or d.content_filter:
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": _REFUSED}
    reason = "max_tokens" if d.incomplete else "tool_use" if d.tools else "end_turn"
    return {"stop_reason": reason, "stop_sequence": None}


def _head(reply: Reply) -> Json:
    return {"id": reply.id, "type": "message", "role": "assistant", "model": reply.request["model"]}


def _usage(reply: Reply, spent: int) -> Json:
    """Cumulative: the last one that is told counts."""
    return {
        "input_tokens": given_tokens(reply),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": spent,
    }
