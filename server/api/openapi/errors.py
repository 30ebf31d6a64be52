"""The refusals of an operation: one answer for each status, which names the codes that it can have."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from server.api.openapi.headers import refer
from server.api.operation import Auth, Operation
from server.errors import (
    Forbidden,
    Internal,
    InvalidJson,
    MalformedHttp,
    MasterOnly,
    PolluxError,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownEncoding,
    UpstreamRefusal,
)

_ALWAYS = (MalformedHttp, Internal, Unavailable)
"""Beside these there is what is refused before it is looked at: see `words`."""
_WITH_A_BODY = (InvalidJson, TooLarge, UnknownEncoding)
_OF_AUTH: dict[Auth, tuple[type[PolluxError], ...]] = {
    Auth.NONE: (),
    Auth.KEY: (Unauthorized, RateLimited),
    Auth.MASTER: (Unauthorized, MasterOnly, RateLimited),
    Auth.SCRAPER: (Unauthorized,),
}
_TOLD: dict[type[PolluxError], str] = {
    Unauthorized: "There is no key, or a wrong one.",
    Forbidden: "The key is not in the config, and no provider decides about it here.",
    RateLimited: "The key, the service or the deployment has as many requests as it may.",
    Internal: "A defect of Pollux. Its log tells more under the id of the request.",
    Unavailable: "The store is away, or this instance ends. Another try will succeed.",
}
_OF_PROVIDERS = "The provider's refusal, with its own status and, where it gave them, its own words and code."


def errors_of(operation: Operation) -> dict[str, Any]:
    """The answers of an operation that refuse, by status."""
    classes = {*_ALWAYS, *_OF_AUTH[operation.auth], *operation.errors, *(_WITH_A_BODY if operation.body else ())}
    by_status: dict[int, list[type[PolluxError]]] = {}
    for one in sorted(classes - {UpstreamRefusal}, key=lambda one: (one.status, one.code or "", one.__name__)):
        by_status.setdefault(one.status, []).append(one)
    answers = {str(status): _answer(_words(status, same), _headers(same)) for status, same in by_status.items()}
    if UpstreamRefusal in classes:
        answers |= {range_: _answer(_OF_PROVIDERS, ["Retry-After"]) for range_ in ("4XX", "5XX")}
    return answers


def _words(status: int, classes: list[type[PolluxError]]) -> str:
    told = [_TOLD[one] for one in classes if one in _TOLD] or [f"{HTTPStatus(status).phrase}."]
    codes = sorted({f"`{one.code}`" for one in classes if one.code})
    if codes:
        told.append(f"`code` is {_either(codes)}{' or null' if any(not one.code for one in classes) else ''}.")
    return " ".join(told)


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _headers(classes: list[type[PolluxError]]) -> list[str]:
    return ["Retry-After"] if any(one.retry_after_s or one is RateLimited for one in classes) else []


def _answer(description: str, headers: Iterable[str]) -> dict[str, Any]:
    return {
        "description": description,
        "headers": refer("X-Request-Id", *headers),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
    }
