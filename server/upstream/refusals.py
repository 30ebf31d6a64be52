"""Refusals: turns an upstream's error answer into an error of Pollux, and tells whether another try may help."""

from __future__ import annotations

import logging
import math
import time
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from server.errors import PolluxError, Untranslatable, UpstreamRefusal, UpstreamTimeout, UpstreamUnavailable
from server.keyring import ClientKey
from server.protocol import jsontext
from server.protocol.causes import Cause, cause_in
from server.protocol.reasons import Fields, Remedy, pause_in, reason_in, reason_of, remedy_for, status_for
from server.upstream.answer import Answer
from server.upstream.deployments import Deployment

log = logging.getLogger("pollux.upstream")

LONGEST_ERROR_BYTES = 256 * 1024
"""How much of an error body is read."""
LONGEST_RETRY_AFTER_S = 60.0
"""The longest pause that is granted. If an upstream asks for more, the next try still comes after this long."""


async def refusal_of(deployment: Deployment, answer: Answer, key: ClientKey | None = None) -> PolluxError:
    """The error for an answer that is not 2xx. `key`: the client's own, if the call was made with that."""
    raw = await answer.beginning(LONGEST_ERROR_BYTES)
    if 300 <= answer.status < 400:
        return UpstreamUnavailable("The provider answered with a redirect, which is not followed.")
    fields = _without_headers_of(deployment, reason_of(raw))
    if key is not None:
        # It is the client's own key and account that the provider speaks of.
        fields = {name: key.hidden_in(value) if isinstance(value, str) else value for name, value in fields.items()}
    elif answer.status in (401, 403):
        # The provider's message may quote our credential or name our account, so the client does not get it. The log
        # does, without whatever looks like a key.
        told = {"deployment": deployment.id[:16], "status": answer.status, "error": fields.get("message")}
        log.warning("a provider refused the credential of %s", deployment.model_name, extra=told)
        text = "The provider refused Pollux's credential for this deployment."
        fields = {"message": text, "code": "upstream_authentication"}
    return UpstreamRefusal(answer.status, fields, answer.passed_on, _pause_asked_by(answer, fields))


_NO_SECRETS = frozenset({"anthropic-version", "anthropic-beta", "openai-beta", "content-type", "accept", "user-agent"})
_SHORTEST_SECRET = 8


def _without_headers_of(deployment: Deployment, fields: Fields) -> Fields:
    """The fields, without what the config sends to the deployment in headers: a provider may quote any of it.

    `reason_of` leaves out what looks like a credential. But what a gateway is let in by may look like anything.
    """
    sent = [value for name, value in deployment.headers.items() if name.lower() not in _NO_SECRETS]
    secrets = {word for value in sent for word in (value, value.rpartition(" ")[2]) if len(word) >= _SHORTEST_SECRET}
    longest_first = sorted(secrets, key=len, reverse=True)

    def hidden(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "…")
        return text

    return {name: hidden(value) if isinstance(value, str) else value for name, value in fields.items()}


def _pause_asked_by(answer: Answer, fields: Fields) -> float | None:
    """The pause that the provider asks for: from `retry-after-ms`, else `Retry-After`, else the error's message."""
    exact = _number(answer.headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    stated = _seconds(answer.headers.get("Retry-After"))
    return pause_in(str(fields.get("message", ""))) if stated is None else stated


def refusal_in(raw: bytes) -> UpstreamRefusal | None:
    """The refusal in a JSON answer of status 200 that holds an error instead of a response; else None."""
    # The fast path: nearly every answer has `"object": "response"` or `"list"`.
    if b'"response"' in raw or b'"list"' in raw or len(raw) > LONGEST_ERROR_BYTES:
        return None
    try:
        body, _ = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or not (body.get("error") or body.get("errors") or body.get("object") == "error"):
        return None
    return failure_said(reason_in(body) or {})


def failure_said(fields: Fields) -> UpstreamRefusal:
    """The refusal for an error that a provider sent after it had answered with status 200."""
    return UpstreamRefusal(status_for(fields), fields, pause_s=pause_in(str(fields.get("message") or "")))


def remedy_of(error: PolluxError) -> Remedy:
    """Which kind of another try may help after this error."""
    if isinstance(error, UpstreamRefusal):
        return remedy_for(error.status, {"code": error.code, "type": error.given_type})
    if isinstance(error, Untranslatable):
        return Remedy.ELSEWHERE
    return Remedy.AGAIN if isinstance(error, UpstreamUnavailable | UpstreamTimeout) else Remedy.NOTHING


def cause_of(error: PolluxError) -> Cause:
    """The cause by which fallbacks are chosen."""
    if not isinstance(error, UpstreamRefusal):
        return Cause.OTHER
    return cause_in({"code": error.code, "type": error.given_type, "message": error.message})


def facts_of(error: PolluxError) -> dict[str, Any]:
    """The fields of a refusal for a log line. They contain neither its body nor a key."""
    if not isinstance(error, UpstreamRefusal):
        return {}
    told = {"upstream_status": error.status, "upstream_request_id": error.passed_on.get("x-upstream-request-id")}
    return {name: value for name, value in told.items() if value is not None}


def is_passing(error: PolluxError) -> bool:
    """Whether another try may succeed, on the same deployment too."""
    return remedy_of(error) is Remedy.AGAIN


def retry_after_of(error: PolluxError) -> float | None:
    """The pause that an upstream asked for, in seconds, at most `LONGEST_RETRY_AFTER_S`; None if it asked for none."""
    pause_s = error.pause_s if isinstance(error, UpstreamRefusal) else None
    return None if pause_s is None else min(max(0.0, pause_s), LONGEST_RETRY_AFTER_S)


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date."""
    if retry_after is None or (seconds := _number(retry_after)) is not None:
        return None if retry_after is None else seconds
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):  # the latter for a year such as 99999999999999999999
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
