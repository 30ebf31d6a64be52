"""The parameters that operations read, as callers are told of them. What reads them is mostly `query`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from server.api.operation import Parameter
from server.api.query import INCLUDABLE, MOST_IDS
from server.protocol.lifecycle import Status

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}


def _many(**item: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", **item}}


def one_of(values: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def limit(default: int, most: int) -> Parameter:
    """How long a page is."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("limit", "How many there are on a page.", schema)


def ours(*parameters: Parameter) -> tuple[Parameter, ...]:
    """The same, as extensions."""
    return tuple(replace(parameter, ours=True) for parameter in parameters)


WAIT = Parameter(
    "wait",
    "How many seconds the answer may wait for the end of the response. The answer is the response as it then is. "
    "Beyond `max_wait_s` (55) the answer begins with white space, which JSON allows, so that no proxy cuts it.",
    {"type": "number", "minimum": 0},
    ours=True,
)
PREFER = Parameter(
    "Prefer",
    "`wait=30` means what the query parameter `wait` does (RFC 7240). A preference that makes no sense is ignored.",
    _TEXT,
    place="header",
    ours=True,
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "The `ETag` of an earlier answer. A wait then ends as soon as there is anything else; where nothing has changed, "
    "the answer is 304.",
    _TEXT,
    place="header",
    ours=True,
)
AFTER_STATE = Parameter(
    "after",
    "The `ETag` of an earlier answer, for clients that take a 304 for an error: as `If-None-Match`, but an unchanged "
    "response is answered with 200.",
    _TEXT,
    ours=True,
)
STREAM = Parameter("stream", "Answer with the events of the response instead.", {**_FLAG, "default": False})
STARTING_AFTER = Parameter(
    "starting_after",
    "With `stream`: begin behind the event with this sequence number.",
    {"type": "integer", "minimum": -(10**18) + 1, "maximum": 10**18 - 1},
)
INCLUDE_OBFUSCATION = Parameter(
    "include_obfuscation", "With `stream`: whether events keep their padding.", {**_FLAG, "default": True}
)
INCLUDE = Parameter(
    "include[]",
    "What else the provider shall show of a response that it keeps itself. Unknown values are ignored.",
    _many(examples=sorted(INCLUDABLE)),
)
AFTER = Parameter("after", "Begin behind the one with this id.", _TEXT)
ORDER = Parameter("order", "Whether the oldest comes first.", {**one_of(("asc", "desc")), "default": "desc"})
STATUS = Parameter("status", "Only those with this status.", one_of(Status))
IDS = Parameter(
    "ids",
    "These instead of a page, in this order: repeated, or with commas in between. It goes with `wait` and `until`, and "
    "not with `limit`, `after` and `status`.",
    {**_many(minLength=1), "minItems": 1, "maxItems": MOST_IDS, "uniqueItems": True},
)
UNTIL = Parameter(
    "until",
    "With `ids`: whether a wait ends when `any` of them has ended, or `all` have.",
    {**one_of(("any", "all")), "default": "any"},
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "The same key with the same body gives the response that the first call made, for as long as that one is kept and "
    "at most a day. In the other modes the provider gets a hash of it.",
    {"type": "string", "maxLength": 1024},
    place="header",
    ours=True,
)
