"""The library that translates between dialects, `martian-linguafranca`: JSON text in, JSON text out.

It is loaded when the first request is translated, so that nobody else pays for it. Its push interface is in the
extension module behind its own functions, which only pull.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import orjson

from server.protocol import jsontext
from server.protocol.dialects.manners import Dialect

_FORMATS = {
    Dialect.RESPONSES: "open_responses",
    Dialect.CHAT: "openai_chat_completions",
    Dialect.MESSAGES: "anthropic_messages",
}


class NotTranslated(ValueError):
    """The library refuses the text; its message says why."""


class Converter(Protocol):
    """The library's translation of one stream."""

    def transform_json_str(self, event: str) -> str: ...
    def flush_json_str(self) -> str: ...


@cache
def _library() -> Any:
    return import_module("linguafranca._linguafranca")


class Conversion(NamedTuple):
    """A translated request, and the fields of the original that it lacks, each with the library's words about it."""

    body: dict[str, Any]
    lost: list[tuple[str, str]]


def converted_request(body: dict[str, Any], dialect: Dialect) -> Conversion:
    """A Responses request in another dialect.

    Raises:
        NotTranslated

    """
    library = _library()
    text = _written(body)
    try:
        answer = library.convert_request_json_str(text, _FORMATS[Dialect.RESPONSES], _FORMATS[dialect], None)
    except library.ConversionError as error:
        raise NotTranslated(str(error)) from error
    made = jsontext.loads(answer.encode())
    lost = [(warning["field"], warning["message"]) for warning in made["warnings"] if warning["action"] == "dropped"]
    return Conversion(made["value"], lost)


def _written(value: dict[str, Any]) -> str:
    """The value as the library takes it: it refuses half an emoji."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return jsontext.dumps(jsontext.uncut(value)).decode()


class Stream:
    """A stream in another dialect, translated event by event."""

    def __init__(self, dialect: Dialect) -> None:
        self._converter: Converter = _library().create_response_stream_converter(
            _FORMATS[dialect], _FORMATS[Dialect.RESPONSES]
        )

    def take(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """The Responses events that this event makes.

        Raises:
            NotTranslated

        """
        try:
            made = self._converter.transform_json_str(_written(event))
        except _library().ConversionError as error:
            raise NotTranslated(str(error)) from error
        events: list[dict[str, Any]] = jsontext.loads(made.encode())
        return events

    def end(self) -> list[dict[str, Any]]:
        """The events that are still to come once the stream is over."""
        events: list[dict[str, Any]] = jsontext.loads(self._converter.flush_json_str().encode())
        return events
