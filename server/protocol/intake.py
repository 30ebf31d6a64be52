"""Intake: turns an upstream's events into the frames of the event log and into the end of the response.

Pure: bytes in, frames out. It logs every event except the upstream's own lifecycle events, errors and keepalives, gives
each frame its number, and recognises the end.

Events that come before the first output are held back until it comes. So a log with more than the opening events always
contains output, and a run that failed before its first output can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from server.protocol import jsontext
from server.protocol.events import Event, MalformedEvent, is_transport, parse_event, renumber
from server.protocol.lifecycle import OPENING, TERMINAL_EVENTS, Status
from server.protocol.nesting import is_too_deep
from server.protocol.reasons import reason_in, reason_of
from server.protocol.snapshot import Identity, response_object
from server.protocol.sse import ServerEvent, encode_frame

_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended; nothing of it is stored yet."""

    status: Status
    upstream: dict[str, Any] | None = None
    """The provider's final response object, where it sent one."""
    error: dict[str, Any] | None = None
    about: dict[str, Any] = field(default_factory=dict, compare=False)
    """Fields for the log line about a failure: the deployment, the status and the provider's request id."""

    @property
    def error_fields(self) -> dict[str, Any]:
        """The fields of the error, as far as the provider told them."""
        return self.error or reason_in((self.upstream or {}).get("error")) or {}

    @property
    def by_provider(self) -> bool:
        """Whether the provider itself ended the response, so that nothing is left to cancel there."""
        return self.upstream is not None


def failure(code: str, message: str) -> Ending:
    return Ending(Status.FAILED, error={"code": code, "message": message})


MOST_EARLY, MOST_EARLY_BYTES = 64, 256 * 1024
"""How many events are held back before any output. Beyond this, output counts as begun, whatever the events are."""
CUT_SHORT = failure("server_error", "The provider ended the stream before the response was complete.")


class Intake:
    """The intake of one upstream stream. Call `take` with each event in order, then `end` for the outcome."""

    def __init__(self, who: Identity, first_number: int, upstream_last: int | None = None) -> None:
        self._who = who
        self.number = first_number
        """The sequence number of the next logged event."""
        self.upstream_last = -1 if upstream_last is None else upstream_last
        """The provider's sequence number of the last event taken."""
        self._resumed = upstream_last is not None
        self.begun = self._resumed
        """Whether output has begun."""
        self._early: list[Event] = []
        """Events held back until output begins."""
        self._early_bytes = 0
        self.base: dict[str, Any] | None = None
        """The response object in the upstream's opening events."""
        self.ending: Ending | None = None
        self._error: dict[str, Any] | None = None

    def take(self, event: ServerEvent) -> Sequence[bytes]:
        """The frames to log now, usually one. A terminal event sets `ending`; all events after it are ignored."""
        if self.ending is not None or event.data == _DONE:
            return ()
        try:
            parsed = parse_event(event.name, event.data)
        except MalformedEvent as error:
            self.ending = failure("server_error", f"The provider sent an event that is {error}.")
            return ()
        if self._is_repeated(parsed) or is_transport(parsed.type):
            return ()
        if parsed.type in TERMINAL_EVENTS:
            self.ending = self._ended(parsed)
            return () if self.ending.status is Status.FAILED else self._begin()
        return self._taken(parsed)

    def _taken(self, event: Event) -> Sequence[bytes]:
        if self._error is not None:
            # The error was held back in case the provider's own `response.failed` followed, but another event did.
            self.ending = Ending(Status.FAILED, error=self._error)
        elif (error_fields := event.error) is not None:
            self._error = error_fields
        elif event.type in OPENING:
            self.base = event.response or self.base
        elif self.begun:
            return (self._logged(event),)
        else:
            self._early.append(event)
            self._early_bytes += len(event.data)
            if event.carries_output or len(self._early) > MOST_EARLY or self._early_bytes > MOST_EARLY_BYTES:
                return self._begin()
        return ()

    def _begin(self) -> Sequence[bytes]:
        self.begun, early, self._early = True, self._early, []
        return [self._logged(event) for event in early]

    def _logged(self, event: Event) -> bytes:
        frame = self._numbered(event)
        return self._who.secrets.hidden_in(frame) if self._who.secrets else frame

    def _numbered(self, event: Event) -> bytes:
        number = self.number
        self.number += 1
        if event.response is None and "response_id" not in event.payload:
            return renumber(event, number)
        # An unknown event type that carries a response: replace the provider's id by the client's.
        payload = {**event.payload, "sequence_number": number}
        if event.response is not None:
            payload["response"] = response_object(self._who, Status.IN_PROGRESS, event.response)
        if "response_id" in payload:
            payload["response_id"] = self._who.id
        return encode_frame(event.type, jsontext.dumps(payload))

    @property
    def failed(self) -> bool:
        """Whether the last event taken was an error."""
        return self._error is not None

    @property
    def holds_events(self) -> bool:
        """Whether events were taken that are not logged yet."""
        return bool(self._early)

    def _is_repeated(self, event: Event) -> bool:
        """Whether a resumed stream repeats an event already taken. In other streams the numbers are ignored."""
        number = event.payload.get("sequence_number")
        if type(number) is not int:
            return False
        if self._resumed and number <= self.upstream_last:
            return True
        self.upstream_last = max(self.upstream_last, number)
        return False

    def end(self) -> Ending:
        """The outcome of the stream, once it is over."""
        if self.ending is not None:
            return self.ending
        if self._error is not None:
            return Ending(Status.FAILED, error=self._error)
        return CUT_SHORT

    def _ended(self, event: Event) -> Ending:
        status, response = TERMINAL_EVENTS[event.type], event.response
        if status is Status.FAILED and response is not None and response.get("status") == "cancelled":
            status = Status.CANCELLED
        told = response is not None and response.get("error")
        return Ending(status, response, self._error if status is Status.FAILED and not told else None)


def parse_answer(raw: bytes) -> dict[str, Any] | None:
    """The object in a JSON answer; None if it is not an object, or nested too deeply to be passed on."""
    try:
        answer, _ = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) and not is_too_deep(raw, answer) else None


def ending_of(raw: bytes) -> Ending:
    """The ending in a JSON answer: that of its finished response object, or a failure with the reason."""
    response = parse_answer(raw) or {}
    reason = None if "output" in response else reason_in(response)
    if reason is None and response.get("status") in ("completed", "failed", "incomplete", "cancelled"):
        return Ending(Status(response["status"]), response)
    if reason is not None:
        return Ending(Status.FAILED, error=reason)
    excerpt = reason_of(raw).get("message")
    text = "The provider answered with neither a stream nor a finished response"
    return failure("server_error", f"{text}: {excerpt}" if excerpt else f"{text}.")
