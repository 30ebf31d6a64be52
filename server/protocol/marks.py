"""Marks on values that only one account can use, so that a later request that contains one goes to that account.

A provider encrypts reasoning and compacted history for the account that asked, and its containers belong to that
account. A client sends these values back in its next request, which need not name a response; with two accounts behind
one model, every other such request would be refused. So Pollux marks each such value, and clients send the mark back:

    pollux-account.<deployment, in base64url>.<check>.<the provider's value>

A container's id keeps its beginning in front of that: `cntr_pollux-account.…`. The check binds deployment and value to
their owner, so that nobody can direct a request to a deployment with a forged mark, or with one of another owner.
Values without a mark, or with a mark that is not genuine, are left unchanged.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from server.protocol.ids import owner_tag

MARK = "pollux-account."
CONTAINER = "cntr_"
"""The beginning of container ids at OpenAI and Azure."""

_TELLING = (b'"encrypted_content"', b'"cntr_')
HOLDERS = ("item", "part", "annotation", "output", "data", "input", "instructions", "tools")
"""The keys under which events, objects, lists and requests hold items and tools. Nothing else is searched."""


class Marked(NamedTuple):
    """The parts of a marked value."""

    deployment: str
    check: str
    value: str

    def is_genuine(self, owner: str, secrets: Sequence[bytes]) -> bool:
        """Whether the mark was made for this owner with one of the secrets."""
        return any(
            hmac.compare_digest(_check(secret, owner, self.deployment, self.value), self.check) for secret in secrets
        )


class Place(NamedTuple):
    """The dictionary and key that hold a value that only one account can use."""

    holder: dict[str, Any]
    key: str

    @property
    def value(self) -> str:
        found: str = self.holder[self.key]
        return found

    @property
    def is_reasoning(self) -> bool:
        """Whether the value is encrypted reasoning. It can be left out; the model then reasons anew."""
        return self.key == "encrypted_content" and self.holder.get("type") == "reasoning"

    @property
    def is_history(self) -> bool:
        """Whether the value names a container of a past call. Unlike a container in `tools`, it is not used again."""
        return self.holder.get("type") in ("code_interpreter_call", "container_file_citation")


def marked(value: str, deployment: str, owner: str, secret: bytes) -> str:
    """The value with a mark; unchanged if it already has this mark."""
    there = parse_marked(value)
    if there and there.deployment == deployment and there.is_genuine(owner, [secret]):
        return value
    beginning = CONTAINER if value.startswith(CONTAINER) else ""
    check = _check(secret, owner, deployment, value)
    return f"{beginning}{MARK}{_encoded(deployment)}.{check}.{value}"


def parse_marked(text: str) -> Marked | None:
    """The parts of a marked value, or None where there is no mark. The check is not verified."""
    body = text.removeprefix(CONTAINER)
    parts = body.removeprefix(MARK).split(".", 2)
    if not body.startswith(MARK) or len(parts) != 3:
        return None
    encoded, check, value = parts
    try:
        deployment = b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return Marked(deployment, check, value) if check.isascii() and value.isascii() else None


def is_marked(request: bytes) -> bool:
    """Whether a request's JSON text may hold a marked value."""
    return MARK.encode() in request


def may_have_places(raw: bytes) -> bool:
    """Whether a JSON text may hold a value that only one account can use."""
    return _TELLING[0] in raw or _TELLING[1] in raw


def places(body: dict[str, Any]) -> Iterator[Place]:
    """All values in an answer, event or request that only one account can use, in order."""
    response = body.get("response")
    for owner in (body, response) if isinstance(response, dict) else (body,):
        for name in HOLDERS:
            yield from _places_in(owner.get(name))


def _places_in(value: Any) -> Iterator[Place]:
    # Not recursive, because a provider's JSON may be nested more deeply than Python's call stack allows.
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, str) and _is_bound(key, inner):
                    yield Place(value, key)
            waiting += [inner for inner in reversed(value.values()) if isinstance(inner, dict | list)]


def _is_bound(key: str, value: str) -> bool:
    if key == "encrypted_content":
        return value.isascii() and value != ""
    return key in ("container", "container_id") and value.startswith(CONTAINER) and value.isascii()


def _check(secret: bytes, owner: str, deployment: str, value: str) -> str:
    return owner_tag(secret, owner, f"{MARK}{_encoded(deployment)}.{value}")


def _encoded(deployment: str) -> str:
    return urlsafe_b64encode(deployment.encode()).decode().rstrip("=")
