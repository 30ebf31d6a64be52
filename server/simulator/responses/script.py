"""The events of a reply, in OpenAI's order, each made when it is asked for.

`script` is a pure generator: walked again, it gives the same events. Their numbers are their places in it.
"""

from collections.abc import Iterator

import orjson

from server.simulator.events import Event, interrupted, padding
from server.simulator.reply import CITED_TITLE, CITED_URL, FAILURE, Part, Reply
from server.simulator.responses.objects import response_object
from server.simulator.turn import Json

# The first event that says "this content is whole": a reply told to fail fails in its place.
_CONTENT_DONE = {
    "response.output_text.done",
    "response.refusal.done",
    "response.function_call_arguments.done",
    "response.custom_tool_call_input.done",
}
# What each kind of a call has: the type of its item, the prefix of its id, its field, and the name in its events.
_CALLS = {
    "call": ("function_call", "fc", "arguments", "function_call_arguments"),
    "custom_call": ("custom_tool_call", "ctc", "input", "custom_tool_call_input"),
}
_SUMMARY = ["**Repeating", " the", " input**\n\nThe", " input", " is", " to", " be", " said", " again."]


def script(reply: Reply) -> Iterator[Event]:
    """All events of a reply, from response.created to the terminal one (left out by `error_only`)."""
    output: list[Json] = []
    return interrupted(
        _until_terminal(reply, output),
        reply.directives,
        ends_content=lambda event: event.type in _CONTENT_DONE,
        error=lambda: _broken_off(reply, output),
        failure=lambda: [_failed(reply, output)],
    )


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
        data["obfuscation"] = padding(number, len(delta))
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), orjson.dumps(data))


def _until_terminal(reply: Reply, output: list[Json]) -> Iterator[Event]:
    number = -1
    for number, event in enumerate(_opening_and_items(reply, output)):  # noqa: B007 - counted for what follows
        yield event
    status = "incomplete" if reply.directives.half else "completed"
    ended_after_s = reply.schedule().due_s(number + 1)
    response = response_object(reply, status, output=output, ended_after_s=ended_after_s)
    yield Event(f"response.{status}", {"response": response})


def _opening_and_items(reply: Reply, output: list[Json]) -> Iterator[Event]:
    """Each item is in `output` when its last event is taken."""
    first = "queued" if reply.background else "in_progress"
    yield Event("response.created", {"response": response_object(reply, first)})
    if reply.background:
        yield Event("response.queued", {"response": response_object(reply, first)})
    yield Event("response.in_progress", {"response": response_object(reply, "in_progress")})
    makers = {"thought": _reasoning, "call": _call, "custom_call": _call, "refusal": _refusal, "text": _text}
    for part in reply.parts():
        yield from makers[part.kind](reply, output, part)


def _text(reply: Reply, output: list[Json], said: Part) -> Iterator[Event]:
    index = len(output)
    item = _message(reply, index)
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    text = said.whole
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    yield Event("response.content_part.added", {**place, "part": part})
    for word in said.deltas:
        yield Event("response.output_text.delta", {**place, "delta": word, "logprobs": []})
    annotations = [_citation(text)] if reply.directives.annotations else []
    for n, annotation in enumerate(annotations):
        added = {**place, "annotation_index": n, "annotation": annotation}
        yield Event("response.output_text.annotation.added", added)
    yield Event("response.output_text.done", {**place, "text": text, "logprobs": []})
    done = {**part, "annotations": annotations, "text": text}
    yield Event("response.content_part.done", {**place, "part": done})
    yield _item_done(reply, output, {**item, "content": [done]})


def _refusal(reply: Reply, output: list[Json], said: Part) -> Iterator[Event]:
    index = len(output)
    item = _message(reply, index)
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    done = {"type": "refusal", "refusal": said.whole}
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    yield Event("response.content_part.added", {**place, "part": {"type": "refusal", "refusal": ""}})
    for word in said.deltas:
        yield Event("response.refusal.delta", {**place, "delta": word})
    yield Event("response.refusal.done", {**place, "refusal": done["refusal"]})
    yield Event("response.content_part.done", {**place, "part": done})
    yield _item_done(reply, output, {**item, "content": [done]})


def _call(reply: Reply, output: list[Json], call: Part) -> Iterator[Event]:
    index = len(output)
    kind, prefix, field, name = _CALLS[call.kind]
    item = {
        "id": reply.item_id(prefix, index),
        "type": kind,
        "name": call.name,
        "status": "in_progress",
        "call_id": reply.item_id("call", index),
        field: "",
    }
    place = {"item_id": item["id"], "output_index": index}
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    for piece in call.deltas:
        yield Event(f"response.{name}.delta", {**place, "delta": piece})
    yield Event(f"response.{name}.done", {**place, field: call.whole})
    yield _item_done(reply, output, {**item, field: call.whole})


def _reasoning(reply: Reply, output: list[Json], thought: Part) -> Iterator[Event]:
    index = len(output)
    item: Json = {"id": reply.item_id("rs", index), "type": "reasoning", "summary": []}
    place = {"item_id": item["id"], "output_index": index}
    summary = {"type": "summary_text", "text": "".join(_SUMMARY)}
    content = {"type": "reasoning_text", "text": thought.whole}
    yield Event("response.output_item.added", {"output_index": index, "item": item})
    part = {**place, "summary_index": 0}
    kind = "response.reasoning_summary"
    yield Event(f"{kind}_part.added", {**part, "part": {**summary, "text": ""}})
    yield from _spoken(f"{kind}_text", part, _SUMMARY)
    yield Event(f"{kind}_part.done", {**part, "part": summary})
    part = {**place, "content_index": 0}
    yield Event("response.content_part.added", {**part, "part": {**content, "text": ""}})
    yield from _spoken("response.reasoning_text", part, thought.deltas)
    yield Event("response.content_part.done", {**part, "part": content})
    done = {**item, "summary": [summary], "content": [content]}
    output.append(done)
    yield Event("response.output_item.done", {"output_index": index, "item": done})


def _spoken(kind: str, place: Json, deltas: list[str]) -> Iterator[Event]:
    for delta in deltas:
        yield Event(f"{kind}.delta", {**place, "delta": delta})
    yield Event(f"{kind}.done", {**place, "text": "".join(deltas)})


def _message(reply: Reply, index: int) -> Json:
    item_id = reply.item_id("msg", index)
    return {"id": item_id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}


def _item_done(reply: Reply, output: list[Json], item: Json) -> Event:
    done = {**item, "status": "incomplete" if reply.directives.half else "completed"}
    index = len(output)
    output.append(done)
    return Event("response.output_item.done", {"output_index": index, "item": done})


def _citation(text: str) -> Json:
    cited = {"start_index": 0, "end_index": len(text), "title": CITED_TITLE}
    return {"type": "url_citation", **cited, "url": CITED_URL}


def _broken_off(reply: Reply, output: list[Json]) -> Iterator[Event]:
    failure = _failure(reply)
    yield Event("error", {"error": {"type": failure["code"], **failure, "param": None}})
    if not reply.directives.error_only:
        yield _failed(reply, output)


def _failed(reply: Reply, output: list[Json]) -> Event:
    return Event(
        "response.failed",
        {"response": response_object(reply, "failed", output=output, error=_failure(reply))},
    )


def _failure(reply: Reply) -> Json:
    return {"code": reply.directives.error_code or "server_error", "message": FAILURE}
