"""What is answered: a provider's answer in its dialect as Responses events, or as one Response object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from server.protocol import jsontext
from server.protocol.dialects.chat_reader import ChatReader
from server.protocol.dialects.library import NotTranslated, Stream
from server.protocol.dialects.manners import Dialect
from server.protocol.dialects.mending import Mending
from server.protocol.dialects.messages_reader import MessagesReader
from server.protocol.dialects.reading import Reading
from server.protocol.sse import ServerEvent, encode_frame

_DONE = b"[DONE]"


class Reply:
    """The translation of one answer. Call `take` with its events in order, then `end`; or `whole` with its body."""

    def __init__(
        self,
        dialect: Dialect,
        response_id: str,
        seed: str,
        created_at: int,
        custom_tools: frozenset[str],
        namespaced: frozenset[str] = frozenset(),
    ) -> None:
        self._reader = ChatReader(seed) if dialect is Dialect.CHAT else MessagesReader(seed)
        self._stream = Stream(dialect)
        self._mending = Mending(response_id, seed, created_at, custom_tools, namespaced)
        self._number = 0
        self._ended = False

    def take(self, events: Iterable[ServerEvent]) -> list[ServerEvent]:
        """The Responses events that these make. What follows the end is ignored."""
        return [_framed(made) for event in events for made in self._taken(event)]

    def end(self) -> list[ServerEvent]:
        """The rest, once the connection is at its end. A stream that was cut has no last event."""
        return [_framed(made) for made in self._end()]

    def whole(self, raw: bytes) -> bytes:
        """The Response object for an answer that is not streamed. An answer of another form is returned unchanged."""
        try:
            answer, _ = jsontext.mended(raw)
        except ValueError:
            return raw
        if not isinstance(answer, dict) or not ("choices" in answer or answer.get("type") == "message"):
            return raw
        made = [*self._read(answer), *self._end()]
        response = made[-1].get("response") if made else None
        return raw if response is None else jsontext.dumps(response)

    def _taken(self, event: ServerEvent) -> Iterator[dict[str, Any]]:
        if self._ended:
            return
        if event.data.strip() == _DONE:
            self._reader.over = True
        else:
            try:
                payload, _ = jsontext.mended(event.data)
            except ValueError:
                payload = None
            if not isinstance(payload, dict):
                yield self._failed({"message": "The provider sent an event that is not a JSON object."})
                return
            if event.name == "error" and "error" not in payload:
                payload = {"error": payload}
            yield from self._read(payload)
        if self._reader.over:
            yield from self._end()

    def _read(self, payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
        message = payload.get("message")
        named = payload.get("model") or (message.get("model") if isinstance(message, dict) else None)
        self._mending.name_model(named if isinstance(named, str) else "")
        for reading in self._reader.read(payload):
            yield from self._translated(reading)
        if self._reader.failure is not None:
            yield self._failed(self._reader.failure)

    def _end(self) -> Iterator[dict[str, Any]]:
        finish = self._reader.finish
        if self._ended or finish is None:
            return
        for reading in self._reader.close():
            yield from self._translated(reading)
        yield from self._mended(self._stream.end(), [])
        if not self._ended:
            yield from map(self._numbered, self._mending.unfinished())
            self._ended = True
            yield self._numbered(self._mending.terminal(finish, self._reader.usage))

    def _translated(self, reading: Reading) -> Iterator[dict[str, Any]]:
        if self._ended:
            return
        if reading.is_item:
            yield from map(self._numbered, self._mending.whole(reading.event))
            return
        try:
            made = self._stream.take(reading.event)
        except NotTranslated as error:
            if reading.is_extra:
                return
            yield self._failed({"message": f"The provider's answer can't be translated: {error}."})
            return
        yield from self._mended(made, reading.logprobs)

    def _mended(self, events: list[dict[str, Any]], logprobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for event in events:
            for made in self._mending.mended(event, logprobs, self._reader.annotations):
                yield self._numbered(made)

    def _failed(self, fields: dict[str, Any]) -> dict[str, Any]:
        self._ended = True
        # Where the provider tells a type, that decides whether another try may help.
        unsaid = {} if fields.get("type") else {"code": "server_error"}
        return self._numbered({"type": "error", "error": {**unsaid, **fields}})

    def _numbered(self, event: dict[str, Any]) -> dict[str, Any]:
        event["sequence_number"] = self._number
        self._number += 1
        return event


def _framed(event: dict[str, Any]) -> ServerEvent:
    data = jsontext.dumps(event)
    return ServerEvent(event["type"], data, encode_frame(event["type"], data))
