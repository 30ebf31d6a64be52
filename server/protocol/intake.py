"""Intake: from an upstream's events to the frames of our log and to the end of the response.

Pure: bytes in, frames out. It decides what is logged (everything but the upstream's own lifecycle events and errors),
gives each frame its number, and recognises the one end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from server.protocol import jsontext
from server.protocol.events import Event, MalformedEvent, parse_event, renumber
from server.protocol.lifecycle import OPENING, TERMINAL_EVENTS, Status
from server.protocol.nesting import is_too_deep
from server.protocol.snapshot import Identity, response_object
from server.protocol.sse import ServerEvent, encode_frame

_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends, before it is written."""

    status: Status
    upstream: dict[str, Any] | None = None
    """The provider's final response object, where it sent one."""
    error: dict[str, Any] | None = None

    @property
    def by_provider(self) -> bool:
        """The provider itself has ended it: there is nothing left to cancel."""
        return self.upstream is not None


def failure(code: str, message: str) -> Ending:
    return Ending(Status.FAILED, error={"code": code, "message": message})


CUT_SHORT = failure("server_error", "The provider ended the stream before the response was complete.")


class Intake:
    """One upstream stream. `take` its events in order, then ask `end` what they came to."""

    def __init__(self, who: Identity, first_number: int, upstream_last: int | None = None) -> None:
        self._who = who
        self.number = first_number
        """The number that the next logged event gets."""
        self.upstream_last = -1 if upstream_last is None else upstream_last
        """The provider's own number of the last event taken."""
        self._resumed = upstream_last is not None
        self.base: dict[str, Any] | None = None
        """The response object that the upstream began with."""
        self.ending: Ending | None = None
        self._error: dict[str, Any] | None = None

    def take(self, event: ServerEvent) -> bytes | None:
        """The frame to log for this event, if any. Sets `ending` with the terminal event, and then takes no more."""
        if self.ending is not None or event.data == _DONE:
            return None
        try:
            parsed = parse_event(event.name, event.data)
        except MalformedEvent as error:
            self.ending = failure("server_error", f"The provider sent an event that is {error}.")
            return None
        if self._is_repeated(parsed):
            return None
        if parsed.type in TERMINAL_EVENTS:
            self.ending = self._ended(parsed)
        elif self._error is not None:
            # It was held back for the provider's own response.failed, which is not what came.
            self.ending = Ending(Status.FAILED, error=self._error)
        elif (error_fields := parsed.error) is not None:
            self._error = error_fields
        elif parsed.type in OPENING:
            self.base = parsed.response or self.base
        else:
            return self._logged(parsed)
        return None

    def _logged(self, event: Event) -> bytes:
        number = self.number
        self.number += 1
        if event.response is None:
            return renumber(event, number)
        # A type that is not known yet, and that carries a response: the client gets it under its own id.
        made = response_object(self._who, Status.IN_PROGRESS, event.response)
        payload = {**event.payload, "sequence_number": number, "response": made}
        return encode_frame(event.type, jsontext.dumps(payload))

    @property
    def held_back(self) -> bool:
        """An error came that no other event has followed."""
        return self._error is not None

    def _is_repeated(self, event: Event) -> bool:
        """Whether a resumed stream sends again what was taken before. Of other streams the numbers mean nothing."""
        number = event.payload.get("sequence_number")
        if type(number) is not int:
            return False
        if self._resumed and number <= self.upstream_last:
            return True
        self.upstream_last = max(self.upstream_last, number)
        return False

    def end(self) -> Ending:
        """What a stream that is over came to."""
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
    """The object in a JSON answer, or None where there is none that could be passed on."""
    try:
        answer, _ = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) and not is_too_deep(raw, answer) else None


def ending_of(response: dict[str, Any] | None) -> Ending:
    """The end told by a whole response object, from an upstream that answers a streamed request with JSON."""
    status = (response or {}).get("status")
    if status in ("completed", "failed", "incomplete", "cancelled"):
        return Ending(Status(status), response)
    return failure("server_error", "The provider answered with neither a stream nor a finished response.")
