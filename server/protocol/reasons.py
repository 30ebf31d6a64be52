"""Finds a provider's reason for a failure in any known shape, and decides whether another try may help.

Shapes seen: OpenAI and Anthropic `{"error": {…}}`, Google a list of these, Ollama `{"error": "text"}`, vLLM
`{"object": "error", "message": …}`, FastAPI `{"detail": …}` (a text, or a list of `{"loc", "msg"}`), RFC 9457
`{"title", "detail"}`, AWS `{"Message": …}`, GraphQL-like `{"errors": […]}`, a gateway's HTML page, plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from html import unescape
from typing import Any

import orjson

from server.protocol import jsontext

Fields = dict[str, Any]
"""The fields of an error, as far as the provider told them: `message`, `type`, `param`, `code`."""

LONGEST_EXCERPT = 300
"""How many characters are shown of an error body of unknown shape."""
LONGEST_MESSAGE = 8192
"""The longest message, in characters. Some providers quote the whole prompt in it."""
_DEEPEST = 4
"""How many levels are searched: gateways wrap the errors of other gateways, which wrap the provider's."""


class Remedy(Enum):
    """Which kind of another try may help a failed request."""

    AGAIN = "again"
    """A try on any deployment: the failure was temporary."""
    ELSEWHERE = "elsewhere"
    """Only a try with another account: this one lacks the permission, the quota or the model."""
    NOTHING = "nothing"
    """No other try: every deployment would refuse this request."""


_SECRET = re.compile(r"\b(Bearer\s+|(?:sk|pk|rk|xai|gsk|ghp|hf|pat|key)[-_]|AIza)[-\w.*]{8,}", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """The text, in which everything that looks like a credential is cut off after its prefix."""
    return _SECRET.sub(r"\1…", text)


def reason_of(raw: bytes) -> Fields:
    """The error in a body, without credentials. It has at least a `message`, unless the body is empty."""
    fields = _reason_of(raw)
    return {**fields, "message": without_secrets(str(fields["message"]))} if fields else {}


def _reason_of(raw: bytes) -> Fields:
    if not raw.strip():
        return {}
    try:
        body, _ = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return {"message": _text_of_page(raw.decode("utf-8", "replace"))}
    return reason_in(body) or {"message": _shortened(raw.decode("utf-8", "replace"))}


def reason_in(body: Any, depth: int = _DEEPEST) -> Fields | None:
    """The fields of the error in a value, or None if it contains no error."""
    if isinstance(body, str):
        return {"message": body[:LONGEST_MESSAGE]} if body.strip() else None
    if isinstance(body, list):
        return _first_of_all(body, depth)
    if not isinstance(body, dict) or depth == 0:
        return None
    outer = _own_fields(body)
    for key in ("error", "errors", "message", "fault", "detail", "details"):
        if inner := reason_in(body.get(key), depth - 1):
            # Fields at the same level as the message describe it best.
            return {**outer, **inner} if "message" not in outer or key == "error" else {**inner, **outer}
    if "message" not in outer and isinstance(title := body.get("title"), str) and title.strip():
        outer["message"] = title[:LONGEST_MESSAGE]
    return outer if "message" in outer else None


def _own_fields(body: dict[str, Any]) -> Fields:
    found: Fields = {}
    for key in ("message", "Message", "msg", "reason", "faultstring", "error_description"):
        if isinstance(text := body.get(key), str) and text.strip():
            found["message"] = text[:LONGEST_MESSAGE]
            break
    if "message" in found and isinstance(place := body.get("loc"), list):
        found["message"] = f"{'.'.join(map(str, place))}: {found['message']}"
    for name in ("type", "code", "param"):
        if isinstance(value := body.get(name), str | int) and not isinstance(value, bool) and value != "error":
            found[name] = value
    # Google puts the type into `status`, such as RESOURCE_EXHAUSTED.
    if isinstance(status := body.get("status"), str) and "code" in found:
        found.setdefault("type", status)
    return found


def _first_of_all(reasons: list[Any], depth: int) -> Fields | None:
    found = [reason for one in reasons[:8] if (reason := reason_in(one, depth))]
    if not found:
        return None
    return {**found[0], "message": "; ".join(str(one["message"]) for one in found)[:LONGEST_MESSAGE]}


# No pattern may look for what may never come, from each of many beginnings: a page of 256 KB took half a minute so.
_TAG = re.compile(r"(<[^<>]*>)")
_NAME = re.compile(r"</?([a-z]+)", re.IGNORECASE)
_UNSEEN = frozenset({"script", "style"})


def _text_of_page(text: str) -> str:
    """The title of an HTML page, else its text without tags."""
    if "<" not in text:
        return _shortened(text)
    words = list(_words_in(text))
    title = "".join(piece for piece, inside in words if inside == "title")
    return _shortened(unescape(title if title.strip() else " ".join(piece for piece, _ in words)))


def _words_in(page: str) -> Iterator[tuple[str, str]]:
    """The texts between the tags that a reader sees, each with the name of the tag before it."""
    inside = ""
    for place, piece in enumerate(_TAG.split(page)):
        if place % 2 == 0:
            if inside not in _UNSEEN:
                yield piece, inside
            continue
        named = _NAME.match(piece)
        name = named[1].lower() if named else ""
        if inside not in _UNSEEN:
            inside = "" if piece.startswith("</") else name
        elif piece.startswith("</") and name == inside:
            inside = ""


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= LONGEST_EXCERPT else words[:LONGEST_EXCERPT] + "…"


# What another try means.

_ACCOUNT = re.compile(
    r"insufficient_quota|quota_exceeded|billing|insufficient_(balance|funds|credits?)|account_deactivated"
    r"|api_?key|authenticat|unauthori[sz]ed|permission|forbidden|access_denied|access_?terminated"
    r"|model_not_found|deployment_?not_?found",
    re.IGNORECASE,
)
_REQUEST = re.compile(
    r"^(invalid|unsupported|unknown|missing|malformed|image|integer|string|array|object|number|empty|failed_to_download)_"
    r"|invalid_?(request|prompt|argument)|bad_?request|validation|policy|content_?filter|moderation|safety|refus"
    r"|context_(length|window)|too_(large|long)|(above|below)_m|not_found|not_supported|literal_error|unprocessable",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"rate_?limit|too_?many|overload|slow_?down|unavailable|time_?out|timed_out|server_?error|internal|exhausted"
    r"|capacity|throttl|busy|connection|bad_?gateway|conflict|try_?again",
    re.IGNORECASE,
)
_LIMITED = re.compile(r"rate_?limit|too_?many|slow_?down|exhausted|throttl|insufficient_quota|^429$", re.IGNORECASE)

_PASSING_STATUSES = (408, 409, 425, 429)
_ACCOUNT_STATUSES = (401, 402, 403, 404)


def remedy_for(status: int | None, fields: Fields) -> Remedy:
    """Which kind of another try may help.

    The error's code takes precedence over the status, because gateways answer 500 to a bad prompt and 400 to a spent
    budget. `status` is None if the provider had already answered 200 when it reported the error.
    """
    words = _words_of(fields)
    if any(_ACCOUNT.search(word) for word in words):
        return Remedy.ELSEWHERE
    told = status or _status_in(fields)
    # With a status the type is ignored, because it is vague: `invalid_request_error` comes with many statuses.
    for word in words[:1] if told else words:
        if _PASSING.search(word):
            return Remedy.AGAIN
        if _REQUEST.search(word):
            return Remedy.NOTHING
    if told in _ACCOUNT_STATUSES:
        return Remedy.ELSEWHERE
    if told is None or told in _PASSING_STATUSES or not 400 <= told < 500:
        return Remedy.AGAIN
    return Remedy.NOTHING


def status_for(fields: Fields) -> int:
    """The HTTP status for an error that a provider reported after it had answered 200."""
    if told := _status_in(fields):
        return told
    if is_limited(fields):
        return 429
    remedy = remedy_for(None, fields)
    return 400 if remedy is Remedy.NOTHING else 502


def is_limited(fields: Fields) -> bool:
    """Whether the error reports a rate limit or a spent quota."""
    return any(_LIMITED.search(word) for word in _words_of(fields))


def _words_of(fields: Fields) -> list[str]:
    """The code and the type. The code is more telling: the type of OpenAI's `rate_limit_exceeded` is `requests`."""
    return [str(fields.get(name) or "") for name in ("code", "type")]


def _status_in(fields: Fields) -> int | None:
    code = str(fields.get("code", ""))
    return int(code) if re.fullmatch(r"[45][0-9]{2}", code) else None


_AGAIN = re.compile(r"(?:try again|retry)(?: after| in)?:? +(?=[0-9])", re.IGNORECASE)
_PIECE = re.compile(
    r" ?([0-9]+(?:\.[0-9]+)?) ?(ms|milliseconds?|hours?|h|minutes?|min|m|seconds?|sec|s)?(?![a-z])", re.IGNORECASE
)
_SECONDS = {"ms": 0.001, "mil": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hou": 3600.0}


def pause_in(message: str) -> float | None:
    """The seconds in a message like `Please try again in 1m2.5s` (OpenAI) or `retry after 37 seconds` (Azure)."""
    asked = _AGAIN.search(message[:LONGEST_MESSAGE])
    if asked is None:
        return None
    seconds, place = 0.0, asked.end()
    while piece := _PIECE.match(message, place):
        seconds += float(piece[1]) * _SECONDS[(piece[2] or "s")[:3].lower()]
        place = piece.end()
    return seconds
