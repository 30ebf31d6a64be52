"""Query parameters, and the headers that ask for a wait.

A bad query parameter is refused. A bad `Prefer: wait` is ignored, as RFC 7240 says. Entity tags are those of RFC 9110,
sections 8.8.3 and 13.1.2.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from aiohttp import HttpVersion11, web

from server.api.context import context_of
from server.errors import BadRequest, InvalidType, InvalidValue, MissingParameter, shown

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')

INCLUDABLE = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
"""The values of `include` in OpenAI's API description. Others are dropped, because an upstream would refuse them."""


def flag(request: web.Request, name: str, *, default: bool) -> bool:
    """A boolean parameter. SDKs send the words `true` and `false`; 1 and 0 are accepted too."""
    text = request.query.get(name)
    if text in (None, ""):
        return default
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise InvalidType(name, "a boolean", text)


def integer(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise InvalidType(name, "an integer", text)
    return int(text)


def limit(request: web.Request, default: int = 20, most: int = 100) -> int:
    value = integer(request, "limit")
    if value is None:
        return default
    if value > most:
        raise BadRequest(
            f"Invalid 'limit': integer above maximum value. Expected a value <= {most}, but got {value} instead.",
            param="limit",
            code="integer_above_max_value",
        )
    if value < 1:
        raise BadRequest(
            f"Invalid 'limit': integer below minimum value. Expected a value >= 1, but got {value} instead.",
            param="limit",
            code="integer_below_min_value",
        )
    return value


def choice(request: web.Request, name: str, allowed: tuple[str, ...], default: str) -> str:
    text = request.query.get(name, default)
    if text not in allowed:
        raise InvalidValue(f"Invalid value for '{name}': expected one of {', '.join(allowed)}.", param=name)
    return text


def includes(request: web.Request) -> list[str]:
    """The values of `include` that may be forwarded, given as `include` or as `include[]`."""
    given = [*request.query.getall("include[]", ()), *request.query.getall("include", ())]
    return [value for value in given if value in INCLUDABLE]


def several(request: web.Request, name: str) -> list[str]:
    """The values of a parameter that may be repeated, `name=` or `name[]=`, or hold several with commas in between."""
    return list(dict.fromkeys(filter(None, _parts(request, name))))


def _parts(request: web.Request, name: str) -> list[str]:
    given = [*request.query.getall(name, ()), *request.query.getall(f"{name}[]", ())]
    return [part.strip() for text in given for part in text.split(",")]


MOST_IDS = 200
"""How many responses one request may name."""


def listed_ids(request: web.Request) -> list[str]:
    """The ids in `ids=a,b,c`, `ids=a&ids=b` or `ids[]=a&ids[]=b`.

    Raises:
        InvalidValue

    """
    return checked_ids(_parts(request, "ids"))


def checked_ids(ids: object) -> list[str]:
    """The ids of the responses that one request names, each once.

    Raises:
        MissingParameter, InvalidType, InvalidValue

    """
    if ids is None:
        raise MissingParameter("ids")
    if not isinstance(ids, list):
        raise InvalidType("ids", "an array of strings", ids)
    if len(ids) > MOST_IDS:
        raise InvalidValue(f"Invalid 'ids': expected at most {MOST_IDS} ids, but got {len(ids)} instead.", param="ids")
    seen: set[str] = set()
    for number, response_id in enumerate(ids):
        if not isinstance(response_id, str):
            raise InvalidType(f"ids[{number}]", "a string", response_id)
        if not response_id:
            raise InvalidValue(f"Invalid 'ids': the id at place {number + 1} is empty.", param="ids")
        if response_id in seen:
            raise InvalidValue(f"Invalid 'ids': '{shown(response_id)}' stands there twice.", param="ids")
        seen.add(response_id)
    if not ids:
        raise InvalidValue("Invalid 'ids': expected at least one id.", param="ids")
    return ids


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a client's request waits, and for what."""

    seconds: float | None = None
    """The granted wait; None if the client asked for none."""
    known: tuple[str, ...] = ()
    """The entity tags that the client has. The wait ends with any other state; if empty, with the response's end."""
    quiet: bool = False
    """Whether an unchanged state is answered with 304 (`If-None-Match`) rather than with the object again (`after`)."""

    def has(self, etag: str) -> bool:
        return "*" in self.known or etag.strip('"') in self.known

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.seconds is None else {"Preference-Applied": f"wait={self.seconds:g}"}


NO_WAIT = Wait()


def wait_of(request: web.Request) -> Wait:
    """The wait that a request asks for.

    Raises:
        BadRequest: `?wait` is no valid number; a bad `Prefer` is ignored, as RFC 7240 says

    """
    if request.method == "HEAD":
        return NO_WAIT
    # The fast path of nearly every POST, which has none of the three.
    if not request.query_string and "Prefer" not in request.headers and "If-None-Match" not in request.headers:
        return NO_WAIT
    seconds = _asked_seconds(request)
    after, if_none_match = request.query.get("after"), request.headers.getall("If-None-Match", ())
    conditional = after is not None or bool(if_none_match)
    granted = None if seconds is None else min(seconds, _longest_wait(request, conditional=conditional))
    if after is not None:
        return Wait(granted, _tags([after]))
    return Wait(granted, _tags(if_none_match), quiet=bool(if_none_match))


def unconditional_wait_of(request: web.Request) -> Wait:
    """The wait that a request asks for, if its answer has no entity tag.

    Raises:
        BadRequest: `?wait` is no valid number

    """
    seconds = None if request.method == "HEAD" else _asked_seconds(request)
    return NO_WAIT if seconds is None else Wait(min(seconds, _longest_wait(request, conditional=False)))


def _asked_seconds(request: web.Request) -> float | None:
    seconds = _wait_parameter(request)
    return _preferred_wait(request) if seconds is None else seconds


def _longest_wait(request: web.Request, *, conditional: bool) -> float:
    """The longest wait that this request can be granted.

    A wait beyond `max_wait_s` is held (see `hold.py`), so its headers are sent before the state is known. A conditional
    request needs the status and the entity tag of that state, and HTTP/1.0 can't hold; both get at most `max_wait_s`.
    """
    ours = context_of(request).config.pollux
    if conditional or request.version < HttpVersion11:
        return ours.max_wait_s
    return max(ours.max_wait_s, ours.max_hold_s)


def _wait_parameter(request: web.Request) -> float | None:
    text = request.query.get("wait")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0 or "_" in text:
        raise InvalidValue("Invalid value for 'wait': expected a number of seconds, zero or more.", param="wait")
    return seconds


def _preferred_wait(request: web.Request) -> float | None:
    for preference in ",".join(request.headers.getall("Prefer", ())).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            # Only the first `wait` counts, even if its value is invalid.
            return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
    return None


def _tags(values: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """The opaque parts of all tags. A value without quotes is accepted as a tag, since people paste them that way."""
    found: list[str] = []
    for value in values:
        quoted = _ETAG.findall(value)
        found += quoted or [value.strip().removeprefix("W/").strip('"')]
    return tuple(found)
