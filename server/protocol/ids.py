"""Response ids: polling ids of cached responses, composite ids of all others.

A composite id is `resp_` + base64 of
`litellm:custom_llm_provider:<provider>;model_id:<deployment>;response_id:<the provider's id>` (LiteLLM's form),
to which Pollux appends `;owner:<tag>`, so that an id can't be used, or made up, by another key. LiteLLM's decoder
ignores that part.

It is written in one of two forms, and read in both at any time:

- *published*: standard base64 with padding, as LiteLLM writes it. LiteLLM as a *client* takes every id whose base64
  holds UTF-8 with a `;` for one of its own, unwraps it, and asks for the provider's id in it (its
  `ResponsesAPIRequestUtils.decode_responses_api_response_id`).
- *opaque*: URL-safe base64 without padding of the byte 0x80 and the same text. No UTF-8 begins with that byte, so
  LiteLLM's decoder fails on it and leaves the id alone.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

COMPOSITE_PREFIX = "resp_"
LONGEST_ID = 7000
"""The longest id that fits into a request line. Proxies often allow 8 KB for it, including the path and the query."""

_OPAQUE = b"\x80"
_COMPOSITE = re.compile(
    r"litellm:custom_llm_provider:(?P<provider>[^;]*);model_id:(?P<model_id>[^;]*);response_id:(?P<response_id>.+)"
)
# What may become a path segment of an upstream URL: visible ASCII, and no `.` or `..`.
_PROVIDER_ID = re.compile(r"(?!\.{1,2}$)[\x21-\x7e]+")


_MADE_HERE = re.compile(r"[a-z]{1,8}_([0-9a-f]{32})[0-9a-f]{4}")


class CompositeId(NamedTuple):
    """The parts of a composite id, which tell where a response lives."""

    provider: str
    model_id: str
    response_id: str
    tag: str | None = None
    opaque: bool = False
    """Whether the id is written in the opaque form."""

    @property
    def untagged(self) -> str:
        return f"litellm:custom_llm_provider:{self.provider};model_id:{self.model_id};response_id:{self.response_id}"


def item_seed(response_id: str) -> str:
    """What makes ids of items of this response unlike all others, where the provider gives none: its own digits.

    So the response that an item belongs to can be told from the item's id, see `seed_in`.
    """
    return re.sub(r"[^0-9a-f]", "", response_id.rsplit("_", 1)[-1])[-32:].rjust(32, "0")


def seed_in(item_id: str) -> str | None:
    """The digits of its response in an item's id that was made here; None if it was not."""
    found = _MADE_HERE.fullmatch(item_id)
    return found[1] if found else None


def encode_composite(composite: CompositeId) -> str:
    text = (composite.untagged + (f";owner:{composite.tag}" if composite.tag else "")).encode()
    if composite.opaque:
        return COMPOSITE_PREFIX + urlsafe_b64encode(_OPAQUE + text).decode().rstrip("=")
    return COMPOSITE_PREFIX + b64encode(text).decode()


def new_composite(composite: CompositeId) -> str | None:
    """The id of a new response; None if it can't be part of a URL, because no client could then read the response."""
    if not _PROVIDER_ID.fullmatch(composite.response_id):
        return None
    made = encode_composite(composite)
    if not composite.opaque and ("/" in made or "+" in made):
        # Both characters have another meaning in a URL. Only provider's ids with `>`, `?` or `~` lead to them.
        made = encode_composite(composite._replace(opaque=True))
    return made if len(made) <= LONGEST_ID else None


def decode_composite(text: str) -> CompositeId | None:
    """The parts of a composite id, or None. The padding may be missing; the tag is not verified."""
    if len(text) > LONGEST_ID or not text.startswith(COMPOSITE_PREFIX):
        return None
    raw, opaque = _read(text.removeprefix(COMPOSITE_PREFIX))
    if not raw.isascii():
        return None
    decoded = raw.decode("ascii")
    untagged, mark, tag = decoded.rpartition(";owner:")
    match = _COMPOSITE.fullmatch(untagged if mark else decoded)
    if match is None or not _PROVIDER_ID.fullmatch(match["response_id"]):
        return None
    return CompositeId(match["provider"], match["model_id"], match["response_id"], tag if mark else None, opaque)


def normal_id(text: str) -> str:
    """The id as it was given out: a client may have left out the padding of a composite one."""
    composite = decode_composite(text)
    return text if composite is None else encode_composite(composite)


def _read(encoded: str) -> tuple[bytes, bool]:
    """The decoded text without the byte that marks the opaque form, and whether it had it; empty if not decodable."""
    for opaque, altchars in ((False, b"+/"), (True, b"-_")):
        try:
            raw = b64decode(_padded(encoded), altchars, validate=True)
        except (binascii.Error, ValueError):
            continue
        if raw.startswith(_OPAQUE) == opaque:
            return raw.removeprefix(_OPAQUE), opaque
    return b"", False


def _padded(encoded: str) -> str:
    bare = encoded.rstrip("=")
    return bare + "=" * (-len(bare) % 4)


class ForeignForm(StrEnum):
    """Ids that Pollux did not make, and whose form shows where they come from."""

    PROVIDER = "provider"
    """A provider's own: `resp_…` (OpenAI, Azure, Groq, vLLM), `gen-…` (OpenRouter), a UUID (xAI)."""
    ENCRYPTED = "encrypted"
    """Encrypted by a LiteLLM proxy (its `ResponsesIDSecurity`) with its master key: only that proxy can read it."""


_PROVIDERS_OWN = re.compile(r"(resp_|gen-)[A-Za-z0-9_-]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GCM_PREFIX = "v2:gcm:"
"""The beginning of ids that LiteLLM encrypts with `encryption_algorithm: aes-256-gcm`."""
_SHORTEST_ENCRYPTED = 88
"""24 bytes of nonce, 16 of authentication, and the text `litellm_proxy:responses_api:response_id:;user_id:`."""


def foreign_form(text: str) -> ForeignForm | None:
    """Where an id that Pollux did not make comes from, judged by its form alone; it need not exist there."""
    encoded = text.removeprefix(COMPOSITE_PREFIX)
    if text != encoded and (encoded.startswith(_GCM_PREFIX) or _may_be_sealed(encoded)):
        return ForeignForm.ENCRYPTED
    return ForeignForm.PROVIDER if _PROVIDERS_OWN.fullmatch(text) else None


def _may_be_sealed(encoded: str) -> bool:
    """Whether it has the form of NaCl's secret box in URL-safe base64, and is not a composite id with an error."""
    try:
        raw = b64decode(_padded(encoded), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) > _SHORTEST_ENCRYPTED and not raw.removeprefix(_OPAQUE).startswith(b"litellm:")


def owner_tag(secret: bytes, owner: str, untagged: str) -> str:
    """The first 22 characters (132 bits) of base64url(HMAC-SHA256(secret, owner + NUL + untagged))."""
    message = f"{owner}\0{untagged}".encode("utf-8", "surrogatepass")  # a provider's JSON may hold half an emoji
    digest = hmac.digest(secret, message, hashlib.sha256)
    return urlsafe_b64encode(digest).decode()[:22]


def is_owned(composite: CompositeId, owner: str, secrets: Sequence[bytes]) -> bool:
    """Whether the tag names this owner, under any of the secrets."""
    return composite.tag is not None and any(
        hmac.compare_digest(owner_tag(secret, owner, composite.untagged), composite.tag) for secret in secrets
    )


def is_prefix(text: str) -> bool:
    """Whether ids of cached responses may begin so; `resp_` is what those of providers begin with."""
    return _PREFIX.fullmatch(text) is not None and text != "resp_"


def has_polling_form(text: str) -> bool:
    """Whether the text has the form of a cached response's id: a prefix and a UUID.

    The prefix can be any one, since it may have been another when the response was created.
    """
    cut = len(text) - _UUID_LENGTH
    return cut > 0 and _UUID.fullmatch(text, cut) is not None and is_prefix(text[:cut])


_PREFIX = re.compile(r"[A-Za-z0-9_\-]{1,128}")
_UUID, _UUID_LENGTH = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), 36
