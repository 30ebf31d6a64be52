"""Response ids: polling ids of cached responses, composite ids of all others.

A composite id is `resp_` + standard base64 of
`litellm:custom_llm_provider:<provider>;model_id:<deployment>;response_id:<the provider's id>` (LiteLLM's form),
to which Pollux appends `;owner:<tag>`, so that an id can't be used, or made up, by another key. LiteLLM's decoder
ignores that part.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Sequence
from typing import NamedTuple

COMPOSITE_PREFIX = "resp_"
LONGEST_ID = 2048
"""Longer than any provider's id in base64; an id beyond it is nobody's."""

_COMPOSITE = re.compile(
    r"litellm:custom_llm_provider:(?P<provider>[^;]*);model_id:(?P<model_id>[^;]*);response_id:(?P<response_id>.+)"
)
# What may become a path segment of an upstream URL: visible ASCII, and no `.` or `..`.
_PROVIDER_ID = re.compile(r"(?!\.{1,2}$)[\x21-\x7e]+")


class CompositeId(NamedTuple):
    """Where a response lives, told by its id alone."""

    provider: str
    model_id: str
    response_id: str
    tag: str | None = None

    @property
    def untagged(self) -> str:
        return f"litellm:custom_llm_provider:{self.provider};model_id:{self.model_id};response_id:{self.response_id}"


def encode_composite(composite: CompositeId) -> str:
    text = composite.untagged + (f";owner:{composite.tag}" if composite.tag else "")
    return COMPOSITE_PREFIX + b64encode(text.encode()).decode()


def decode_composite(text: str) -> CompositeId | None:
    """The parts of a composite id, or None. The padding may be missing; the tag is not verified."""
    if len(text) > LONGEST_ID or not text.startswith(COMPOSITE_PREFIX):
        return None
    encoded = text.removeprefix(COMPOSITE_PREFIX).rstrip("=")
    try:
        decoded = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    untagged, mark, tag = decoded.rpartition(";owner:")
    match = _COMPOSITE.fullmatch(untagged if mark else decoded)
    if match is None or not _PROVIDER_ID.fullmatch(match["response_id"]):
        return None
    return CompositeId(match["provider"], match["model_id"], match["response_id"], tag if mark else None)


def owner_tag(secret: bytes, owner: str, untagged: str) -> str:
    """The first 22 characters (132 bits) of base64url(HMAC-SHA256(secret, owner + NUL + untagged))."""
    digest = hmac.digest(secret, f"{owner}\0{untagged}".encode(), hashlib.sha256)
    return urlsafe_b64encode(digest).decode()[:22]


def is_owned(composite: CompositeId, owner: str, secrets: Sequence[bytes]) -> bool:
    """Whether the tag names this owner, under any of the secrets."""
    return composite.tag is not None and any(
        hmac.compare_digest(owner_tag(secret, owner, composite.untagged), composite.tag) for secret in secrets
    )


def is_polling_id(text: str, prefix: str) -> bool:
    """Whether the text has the form of a cached response's id: the prefix and a UUID."""
    return text.startswith(prefix) and _UUID.fullmatch(text, len(prefix)) is not None


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
