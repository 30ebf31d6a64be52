"""Events of the Responses API: they pass through with our number, and otherwise as they came."""

from __future__ import annotations

from typing import Any

from server.protocol import jsontext
from server.protocol.events import MalformedEvent, parse_event, renumber, strip_obfuscation
from server.protocol.intake import Intake, ending_of
from server.protocol.lifecycle import Status
from server.protocol.snapshot import Identity, response_object
from server.protocol.sse import ServerEvent, SseParser
from tests.fuzz.material import Material

KEYS = (
    *("type", "sequence_number", "response", "error", "item", "delta", "output_index", "response_id", "obfuscation"),
    *("id", "status", "output", "code", "message", "part", "tools", "usage", "text", "metadata", "x"),
)
WORDS = (
    *("response.created", "response.in_progress", "response.completed", "response.failed", "response.incomplete"),
    *("response.output_text.delta", "response.output_item.added", "error", "keepalive", "ping", "response.queued"),
    *("completed", "failed", "cancelled", "resp_upstream", '"sequence_number":5', "function", "json_schema"),
)
_NAMES = ("", "error", "response.output_text.delta", "response.completed", "ping", "\N{REPLACEMENT CHARACTER}", "a b")


def fuzz(data: bytes) -> None:
    material = Material(data)
    events = [(material.pick(_NAMES), material.json(KEYS, WORDS)) for _ in range(1 + material.number(4))]
    for number, (name, raw) in enumerate(events):
        _is_renumbered(name, raw, number * 11)
    _is_taken(events)


def _is_renumbered(name: str, raw: bytes, number: int) -> None:
    try:
        event = parse_event(name, raw)
    except MalformedEvent:
        return
    frame = renumber(event, number)
    assert _payload_of(frame) == _plain({**event.payload, "sequence_number": number})
    stripped = {name: value for name, value in event.payload.items() if name != "obfuscation"}
    shown = _payload_of(strip_obfuscation(frame))
    if event.payload.get("obfuscation") is not None:
        assert shown == _plain({**stripped, "sequence_number": number})


def _payload_of(frame: bytes) -> Any:
    """What a reader sees of a frame, which must be one event, whole, in lines that end in LF."""
    assert b"\r" not in frame
    [event] = SseParser().feed(frame)
    assert event.raw == frame
    return _plain(jsontext.loads(event.data))


def _plain(value: Any) -> Any:
    """The value as it is when it has been written and read: equal where the texts are."""
    return jsontext.dumps(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        # Half an emoji in a key is a question mark when it is written.
        plain = {key.encode("utf-8", "replace").decode(): inner for key, inner in value.items()}
        return {key: _sorted(plain[key]) for key in sorted(plain)}
    return [_sorted(inner) for inner in value] if isinstance(value, list) else value


def _is_taken(events: list[tuple[str, bytes]]) -> None:
    """An intake logs gapless numbers, never the upstream's end, and makes an object of what came of it."""
    who = Identity("litellm_poll_1", 1771000000, {"model": "m", "tools": [], "metadata": None})
    intake, logged = Intake(who, 3), list[bytes]()
    for name, raw in events:
        logged += intake.take(ServerEvent(name, raw, raw))
    numbers = [jsontext.loads(SseParser().feed(frame)[0].data)["sequence_number"] for frame in logged]
    assert numbers == list(range(3, 3 + len(logged)))
    for ending in (intake.end(), ending_of(events[0][1])):
        made = response_object(who, ending.status, ending.upstream, error=ending.error, ended_at=5)
        assert (made["id"], made["status"], made["background"]) == ("litellm_poll_1", ending.status, True)
        assert ending.status is not Status.FAILED or made["error"]["message"]
        jsontext.dumps(made)
