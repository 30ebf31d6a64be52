"""Secrets of webhooks, as Standard Webhooks writes them: `whsec_` and base64 of 24 to 64 bytes."""

from __future__ import annotations

import base64
import binascii

PREFIX = "whsec_"


def encode_secret(raw: bytes) -> str:
    return PREFIX + base64.b64encode(raw).decode()


def is_secret(text: str) -> bool:
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(PREFIX) and 24 <= len(raw) <= 64


def hint_of(secret: str) -> str:
    """Enough of a secret to recognise one's own."""
    return f"{PREFIX}…{secret[-4:]}"
