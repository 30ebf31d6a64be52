"""Typed stream events: parsing them, and replacing their sequence number by ours.

Some sixty event types exist, and more will come, so events that carry no response are not interpreted: only the number
is replaced in their bytes, and everything else stays as it came.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from server.protocol import jsontext
from server.protocol.nesting import is_too_deep
from server.protocol.reasons import Fields, reason_in
from server.protocol.sse import encode_frame

_TYPE = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
# Inside a JSON string the closing quote would be escaped, so an unescaped match is always a key.
_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(-?[0-9][0-9.eE+\-]*|null|"[^"\\]*")')
_COLON = re.compile(rb"\s*:")
# Possessive quantifiers: without them the matcher stores a backtracking step for each character of a huge string.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]')


class MalformedEvent(ValueError):
    """An upstream sent something that is not a Responses event. The message says why, without quoting it."""


class Event(NamedTuple):
    """One event of an upstream, parsed once."""

    type: str
    payload: dict[str, Any]
    data: bytes
    """The event's JSON as it came, on one line."""

    @property
    def response(self) -> dict[str, Any] | None:
        found = self.payload.get("response")
        return found if isinstance(found, dict) else None

    @property
    def error(self) -> Fields | None:
        """The error, if this is an `error` event. Others may hold a tool's error, which does not end the response.

        OpenAI has sent both `{"type": "error", "error": {…}}` and `{"type": "error", "code": …, "message": …}`.
        """
        if self.type != "error":
            return None
        return reason_in({name: value for name, value in self.payload.items() if name != "type"}) or {}

    @property
    def failure(self) -> Fields | None:
        """Why the response failed, if this says that it did: an `error`, or `response.failed`."""
        if self.type == "response.failed":
            return reason_in((self.response or {}).get("error")) or {}
        return self.error

    @property
    def carries_output(self) -> bool:
        """Whether the event is output: it carries an item, a part or a delta, or has an `output_index`."""
        return not _CARRIES.isdisjoint(self.payload)


_TRANSPORT = re.compile(r"(response\.)?(keep[_-]?alive|ping|heartbeat)")
_CARRIES = frozenset({"item", "part", "delta", "output_index"})


def parse_event(name: str, data: bytes) -> Event:
    """An event from the name and data of a server-sent event.

    Raises:
        MalformedEvent

    """
    try:
        payload, data = jsontext.mended(data)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent(f"not valid JSON ({error.msg})") from error
    if not isinstance(payload, dict):
        raise MalformedEvent("not a JSON object")
    if is_too_deep(data, payload):
        raise MalformedEvent("nested too deeply")
    # An event named `error` is one, even if its `type` is that of the error, such as `invalid_request_error`.
    kind = name if name == "error" else payload.get("type") or name or ("error" if payload.get("error") else None)
    if not isinstance(kind, str) or not _is_type(kind):
        raise MalformedEvent("without a type")
    if b"\n" in data or b"\r" in data:
        # Line breaks can only be white space between tokens here: inside strings JSON forbids them.
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return Event(kind, payload, data.strip())


@lru_cache(256)
def is_transport(kind: str) -> bool:
    """Whether events of this type only keep a connection alive. OpenAI's is `keepalive`, which may come first."""
    return _TRANSPORT.fullmatch(kind) is not None


@lru_cache(256)
def _is_type(kind: str) -> bool:
    return _TYPE.fullmatch(kind) is not None


def renumber(event: Event, number: int) -> bytes:
    """The event's frame with our number; all its other bytes as they came."""
    data, theirs = event.data, event.payload.get("sequence_number")
    if type(theirs) is int and data.count(b'"sequence_number"') == 1:
        # The fast path for nearly all events. A number written differently, say with a space, is searched for below.
        written = b'"sequence_number":%d' % theirs
        if written in data:
            return encode_frame(event.type, data.replace(written, b'"sequence_number":%d' % number))
    if "sequence_number" not in event.payload:
        # An empty object, whose type is only in the `event:` line, needs no comma.
        comma = b"," if event.payload else b""
        numbered = b'{"sequence_number":%d%b%b' % (number, comma, data[1:].lstrip())
    elif where := _top_level_number(data):
        numbered = b"%b%d%b" % (data[: where[0]], number, data[where[1] :])
    else:
        numbered = jsontext.dumps({**event.payload, "sequence_number": number})
    return encode_frame(event.type, numbered)


def _top_level_number(data: bytes) -> tuple[int, int] | None:
    """The span of the event's own sequence number; the items in it may have keys of the same name.

    None if the value is not a number, but an object, for example.
    """
    matches = list(_NUMBER.finditer(data))
    if len(matches) == 1 == data.count(b'"sequence_number"'):
        return matches[0].span(1)
    places = {match.start(): match.span(1) for match in matches}
    depth, found = 0, None
    for token in _TOKEN.finditer(data):
        mark = token.group()
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        elif depth == 1 and mark == b'"sequence_number"' and _COLON.match(data, token.end()):
            # If a key occurs twice, parsers take the last one.
            found = places.get(token.start())
    return found


def encode_lifecycle(event_type: str, number: int, response: dict[str, Any]) -> bytes:
    """The frame of an event that carries a response."""
    return splice_lifecycle(event_type, number, jsontext.dumps(response))


def splice_lifecycle(event_type: str, number: int, response: bytes) -> bytes:
    """The same frame, for a response that is already encoded as JSON."""
    data = b'{"type":"%b","sequence_number":%d,"response":%b}' % (event_type.encode(), number, response)
    return encode_frame(event_type, data)


def halve_lifecycle(event_type: str, response: dict[str, Any]) -> tuple[bytes, bytes]:
    """The same frame as two parts: its number belongs between them, and is inserted by the store."""
    head = encode_frame(event_type, b'{"type":"%b","sequence_number":' % event_type.encode())[:-2]
    return head, b',"response":%b}\n\n' % jsontext.dumps(response)


def strip_obfuscation(frame: bytes) -> bytes:
    """The frame without its `obfuscation`, for `include_obfuscation=false`."""
    if b'"obfuscation"' not in frame:
        return frame
    head, data = frame[:-2].split(b"\ndata: ", 1)
    payload = jsontext.loads(data)
    if payload.pop("obfuscation", None) is None:
        return frame
    return head + b"\ndata: " + jsontext.dumps(payload) + b"\n\n"
