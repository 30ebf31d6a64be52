"""A provider's reason: found in whatever shape it comes, and what it means for another try.

Shapes seen: OpenAI and Anthropic `{"error": {…}}`, Google a list of these, Ollama `{"error": "text"}`, vLLM
`{"object": "error", "message": …}`, FastAPI `{"detail": …}` (a text, or a list of `{"loc", "msg"}`), RFC 9457
`{"title", "detail"}`, AWS `{"Message": …}`, GraphQL-like `{"errors": […]}`, a gateway's HTML page, plain text.
"""

from __future__ import annotations

import re
from enum import Enum
from html import unescape
from typing import Any

import orjson

from server.protocol import jsontext

Fields = dict[str, Any]
"""Of an error: `message`, `type`, `param`, `code`, as far as the provider told them."""

LONGEST_EXCERPT = 300
"""Characters that are shown of what is no error in any known shape."""
LONGEST_MESSAGE = 8192
"""Characters of a message; providers quote whole prompts in theirs."""
_DEEPEST = 4
"""A gateway wraps the error of a gateway that wraps a provider's."""


class Remedy(Enum):
    """What may help a request that failed."""

    AGAIN = "again"
    """Another try, anywhere: it failed by chance, or for a while."""
    ELSEWHERE = "elsewhere"
    """Another account only: this one has no right, no quota, or does not have what is asked for."""
    NOTHING = "nothing"
    """The request itself is refused, and would be everywhere."""


_SECRET = re.compile(r"\b(Bearer\s+|(?:sk|pk|rk|xai|gsk|ghp|hf|pat|key)[-_]|AIza)[-\w.*]{8,}", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """The text with whatever looks like a credential cut down to its beginning."""
    return _SECRET.sub(r"\1…", text)


def reason_of(raw: bytes) -> Fields:
    """What a body says of why it is no answer: at least a `message`, unless it is empty. Without credentials."""
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
    """The fields of an error that stand in a value, or None where there is no such thing."""
    if isinstance(body, str):
        return {"message": body[:LONGEST_MESSAGE]} if body.strip() else None
    if isinstance(body, list):
        return _first_of_all(body, depth)
    if not isinstance(body, dict) or depth == 0:
        return None
    outer = _own_fields(body)
    for key in ("error", "errors", "message", "fault", "detail", "details"):
        if inner := reason_in(body.get(key), depth - 1):
            # What stands nearest to the message names it best.
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
    # Google's word for it: RESOURCE_EXHAUSTED, say.
    if isinstance(status := body.get("status"), str) and "code" in found:
        found.setdefault("type", status)
    return found


def _first_of_all(reasons: list[Any], depth: int) -> Fields | None:
    found = [reason for one in reasons[:8] if (reason := reason_in(one, depth))]
    if not found:
        return None
    return {**found[0], "message": "; ".join(str(one["message"]) for one in found)[:LONGEST_MESSAGE]}


_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def _text_of_page(text: str) -> str:
    """The title of an HTML page, else what of the text can be read."""
    if "<" not in text:
        return _shortened(text)
    titled = _TITLE.search(text)
    return _shortened(unescape(titled[1] if titled and titled[1].strip() else _TAG.sub(" ", text)))


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
    """What may help. A code goes before the status: gateways answer 500 to a bad prompt, and 400 to an empty wallet.

    `status` is None where the provider had answered 200 before it said this.
    """
    words = _words_of(fields)
    if any(_ACCOUNT.search(word) for word in words):
        return Remedy.ELSEWHERE
    told = status or _status_in(fields)
    # A type is vague: `invalid_request_error` stands beside many a status.
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
    """The HTTP status that an error would have had, had the provider not answered 200 already."""
    if told := _status_in(fields):
        return told
    if is_limited(fields):
        return 429
    remedy = remedy_for(None, fields)
    return 400 if remedy is Remedy.NOTHING else 502


def is_limited(fields: Fields) -> bool:
    """Whether it says that there is too much to do, or nothing left to do it with."""
    return any(_LIMITED.search(word) for word in _words_of(fields))


def _words_of(fields: Fields) -> list[str]:
    """Its code before its type: `requests` is the type of OpenAI's `rate_limit_exceeded`."""
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
