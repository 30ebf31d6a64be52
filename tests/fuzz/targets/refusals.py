"""A provider's errors: whatever it says, there is a reason, a status and a pause of a sane length."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import orjson
from multidict import CIMultiDict

from server.protocol import jsontext
from server.protocol.causes import Cause, cause_in
from server.protocol.reasons import LONGEST_MESSAGE, Remedy, is_limited, reason_in, reason_of, remedy_for, status_for
from server.upstream.answer import Answer
from server.upstream.refusals import _pause_asked_by, failure_said, refusal_in, retry_after_of
from tests.fuzz.material import Material

_KEYS = (
    *("error", "errors", "message", "Message", "detail", "details", "fault", "title", "type", "code", "param"),
    *("status",),
    *("msg", "loc", "reason", "faultstring", "error_description", "object"),
)
_WORDS = (
    *("rate_limit_exceeded", "Please try again in 1m2.5s", "retry after 37 seconds", "429", "error", "sk-abcdefghijkl"),
    *("insufficient_quota", "context_length_exceeded", "server_error", "Bearer abcdefghijkl", "invalid_prompt"),
    "try again in " + "9" * 400 + "s",
)
_PAGES = (
    *("<", ">", "<title>", "</title>", "<script>", "</script", "<style ", "&amp;", "&#x110000;", "&#55296;", " ", "/"),
    *("Bad Gateway", "<!--", "sk-", "abcdefgh", "\x00", "\xff", "{", '"'),
)
_DATES = (
    *("Wed, ", "21 ", "Oct ", "2015 ", "0000 ", "99999999999999999999 ", "07:28:00 ", "99:99:99 ", "GMT", "+0000"),
    *("-2400", "+99999999999", "-0000", "Sun", ",", ":", "1", "-5", "0.5", "1e400", "nan", "²", " ", "9999 ", "31 "),
)


def fuzz(data: bytes) -> None:
    material = Material(data)
    raw = _body(material)
    fields = reason_of(raw)
    assert not raw.strip() or isinstance(fields["message"], str)
    assert len(fields.get("message", "")) <= LONGEST_MESSAGE + 300
    jsontext.dumps(fields)
    assert isinstance(remedy_for(material.pick((None, 400, 404, 429, 500)), fields), Remedy)
    assert isinstance(cause_in(fields), Cause)
    assert 400 <= status_for(fields) < 600
    is_limited(fields)
    refusal_in(raw)
    _is_patient(material, fields)


def _body(material: Material) -> bytes:
    kind = material.number(4)
    if kind == 0:
        return material.raw(64)
    if kind == 1:
        return "".join(material.pick(_PAGES) for _ in material.times(24)).encode("latin-1")
    raw = material.json(_KEYS, _WORDS)
    try:
        jsontext.dumps(reason_in(jsontext.mended(raw)[0]))
    except orjson.JSONDecodeError:
        return raw
    return raw


def _is_patient(material: Material, fields: dict[str, Any]) -> None:
    headers = CIMultiDict(
        {name: "".join(material.pick(_DATES) for _ in material.times(9)) for name in ("Retry-After", "retry-after-ms")}
    )
    answer = cast("Answer", SimpleNamespace(headers=headers))
    refusal = failure_said(fields)
    refusal.pause_s = _pause_asked_by(answer, fields)
    pause_s = retry_after_of(refusal)
    assert pause_s is None or (math.isfinite(pause_s) and 0 <= pause_s <= 60), pause_s
