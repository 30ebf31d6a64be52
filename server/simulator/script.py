"""The events of a reply, in OpenAI's order, each made when it is asked for.

`script` is a pure generator: walked again, it gives the same events. Their numbers are their places in it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import orjson

from server.simulator.reply import Reply, response_object
from server.simulator.turn import Json

# The first event that says "this content is whole": a reply told to fail fails in its place.
_CONTENT_DONE = {
    "response.output_text.done",
    "response.refusal.done",
    "response.function_call_arguments.done",
    "response.custom_tool_call_input.done",
}
# Deltas are padded so that their length gives nothing away, as OpenAI pads them.
_PADDING = "kQ7vZ2mXc9LrT4bNw8HsJ1dYf6PgU3aE" * 2
_TOOL_DELTA_CHARS = 8


class Event(NamedTuple):
    """One event: its type and all its fields but type and number."""

    type: str
    body: Json


def script(reply: Reply) -> Iterator[Event]:
    """All events of a reply, from response.created to the terminal one (left out by `error_only`)."""
    d = reply.directives
    output: list[Json] = []
    number = -1
    for number, event in enumerate(_until_terminal(reply, output)):
        if number == d.error_event_after:
            yield from _broken_off(reply, output)
            return
        if d.fail and event.type in _CONTENT_DONE:
            yield Event(
                "response.failed",
                {"response": response_object(reply, "failed", output=output, error=_failure(reply))},
            )
            return
        yield event
    status = "incomplete" if d.incomplete else "completed"
    ended_after_s = reply.schedule().due_s(number + 1)
    response = response_object(reply, status, output=output, ended_after_s=ended_after_s)
    yield Event(f"response.{status}", {"response": response})


def cancelled_event(reply: Reply) -> Event:
    """What ends the streams of a cancelled response: there is no event type of that name."""
    return Event("response.failed", {"response": response_object(reply, "cancelled")})


def failed_response(reply: Reply) -> Json:
    """The response behind a script that ended with a bare `error` event."""
    return response_object(reply, "failed", error=_failure(reply))


def encode_frame(event: Event, number: int, *, numbered: bool, obfuscated: bool) -> bytes:
    """The event as it goes over the wire."""
    data: Json = {"type": event.type}
    if numbered:
        data["sequence_number"] = number
    data.update(event.body)
    if obfuscated and (delta := event.body.get("delta")) is not None:
        start = number % 32
        data["obfuscation"] = _PADDING[start : start + 16 - len(delta) % 16]
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), orjson.dumps(data))


def _until_terminal(reply: Reply, output: list[Json]) -> Iterator[Event]:
    """The opening and all items; each item is in `output` when its last event is taken."""
    first = "queued" if reply.background else "in_progress"
    yield Event("response.created", {"response": response_object(reply, first)})
    if reply.background:
        yield Event("response.queued", {"response": response_object(reply, first)})
    yield Event("response.in_progress", {"response": response_object(reply, "in_progress")})
    d = reply.directives
    if d.reasoning:
        yield from _reasoning(reply, output)
    if d.tool:
        arguments = orjson.dumps({"input": reply.said()}).decode()
        call = {"type": "function_call", "name": d.tool}
        yield from _tool_call(reply, output, call, "arguments", arguments)
    if d.custom_tool:
        call = {"type": "custom_tool_call", "name": d.custom_tool}
        yield from _tool_call(reply, output, call, "input", reply.said())
    if d.refusal:
        yield from _refusal(reply, output)
    elif not (d.tool or d.custom_tool):
        yield from _text(reply, output)


def _text(reply: Reply, output: list[Json]) -> Iterator[Event]:
    index = len(output)
    item = _message(reply, index)
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    words = reply.words()
    text = "".join(words)
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    yield Event("response.content_part.added", {**place, "part": part})
    for word in words:
        yield Event("response.output_text.delta", {**place, "delta": word, "logprobs": []})
    annotations = [_citation(text)] if reply.directives.annotations else []
    for n, annotation in enumerate(annotations):
        added = {**place, "annotation_index": n, "annotation": annotation}
        yield Event("response.output_text.annotation.added", added)
    yield Event("response.output_text.done", {**place, "text": text, "logprobs": []})
    done = {**part, "annotations": annotations, "text": text}
    yield Event("response.content_part.done", {**place, "part": done})
    yield _item_done(reply, output, {**item, "content": [done]})


def _refusal(reply: Reply, output: list[Json]) -> Iterator[Event]:
    index = len(output)
    item = _message(reply, index)
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    words = reply.cut_short(["I", " cannot", " help", " with", " that."])
    done = {"type": "refusal", "refusal": "".join(words)}
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    yield Event("response.content_part.added", {**place, "part": {"type": "refusal", "refusal": ""}})
    for word in words:
        yield Event("response.refusal.delta", {**place, "delta": word})
    yield Event("response.refusal.done", {**place, "refusal": done["refusal"]})
    yield Event("response.content_part.done", {**place, "part": done})
    yield _item_done(reply, output, {**item, "content": [done]})


def _tool_call(reply: Reply, output: list[Json], call: Json, field: str, value: str) -> Iterator[Event]:
    """A function call (field `arguments`) or a custom tool call (field `input`)."""
    index = len(output)
    prefix, name = ("fc", "function_call_arguments") if field == "arguments" else ("ctc", "custom_tool_call_input")
    item = {
        "id": reply.item_id(prefix, index),
        **call,
        "status": "in_progress",
        "call_id": reply.item_id("call", index),
        field: "",
    }
    place = {"item_id": item["id"], "output_index": index}
    pieces = [value[n : n + _TOOL_DELTA_CHARS] for n in range(0, len(value), _TOOL_DELTA_CHARS)]
    pieces = reply.cut_short(pieces)
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    for piece in pieces:
        yield Event(f"response.{name}.delta", {**place, "delta": piece})
    whole = "".join(pieces)
    yield Event(f"response.{name}.done", {**place, field: whole})
    yield _item_done(reply, output, {**item, field: whole})


def _reasoning(reply: Reply, output: list[Json]) -> Iterator[Event]:
    """Always whole, whatever becomes of the item that follows."""
    index = len(output)
    item: Json = {"id": reply.item_id("rs", index), "type": "reasoning", "summary": []}
    place = {"item_id": item["id"], "output_index": index}
    summary = {"type": "summary_text", "text": "**Repeating the input**\n\nThe input is to be said again."}
    thought = {"type": "reasoning_text", "text": "First read what was said, then say it, word by word."}
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    part = {**place, "summary_index": 0}
    kind = "response.reasoning_summary"
    yield Event(f"{kind}_part.added", {**part, "part": {**summary, "text": ""}})
    yield from _spoken(f"{kind}_text", part, summary["text"])
    yield Event(f"{kind}_part.done", {**part, "part": summary})
    part = {**place, "content_index": 0}
    yield Event("response.content_part.added", {**part, "part": {**thought, "text": ""}})
    yield from _spoken("response.reasoning_text", part, thought["text"])
    yield Event("response.content_part.done", {**part, "part": thought})
    done = {**item, "summary": [summary], "content": [thought]}
    output.append(done)
    yield Event("response.output_item.done", {"output_index": index, "item": done})


def _spoken(kind: str, place: Json, text: str) -> Iterator[Event]:
    words = text.split(" ")
    for n, word in enumerate(words):
        yield Event(f"{kind}.delta", {**place, "delta": word if n == 0 else f" {word}"})
    yield Event(f"{kind}.done", {**place, "text": text})


def _message(reply: Reply, index: int) -> Json:
    item_id = reply.item_id("msg", index)
    return {"id": item_id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}


def _item_done(reply: Reply, output: list[Json], item: Json) -> Event:
    done = {**item, "status": "incomplete" if reply.directives.incomplete else "completed"}
    index = len(output)
    output.append(done)
    return Event("response.output_item.done", {"output_index": index, "item": done})


def _citation(text: str) -> Json:
    url = "https://example.com/simulated"
    cited = {"start_index": 0, "end_index": len(text), "title": "A simulated source"}
    return {"type": "url_citation", **cited, "url": url}


def _broken_off(reply: Reply, output: list[Json]) -> Iterator[Event]:
    failure = _failure(reply)
    yield Event("error", {"error": {"type": failure["code"], **failure, "param": None}})
    if not reply.directives.error_only:
        response = response_object(reply, "failed", output=output, error=failure)
        yield Event("response.failed", {"response": response})


def _failure(reply: Reply) -> Json:
    code = reply.directives.error_code or "server_error"
    return {"code": code, "message": "The simulator was told to fail this response."}
