"""Sealing: secrets of others, which the store keeps for us, encrypted so that nobody who reads the store learns them.

AES-256-GCM, with keys derived from `id_secrets`. Without any in the config they come from a secret that lies in the
same store: then sealing protects backups of single keys, but not a copy of the whole store.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
"""Drawn anew for each text. One key may seal four billion texts before a nonce is likely enough to come twice."""


class Sealer:
    """Encrypts with the first secret, and decrypts what any of them has encrypted."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(_key(secret)) for secret in secrets]

    def seal(self, text: str, about: str = "") -> str:
        """The text, encrypted and authenticated: visible ASCII without spaces.

        `about`: whom it belongs to. It can be unsealed only for the same.
        """
        nonce = os.urandom(NONCE_BYTES)
        return urlsafe_b64encode(nonce + self._ciphers[0].encrypt(nonce, text.encode(), about.encode())).decode()

    def unseal(self, sealed: str, about: str = "") -> str | None:
        """The text; None if it was sealed with another secret or for another, or is broken."""
        try:
            raw = urlsafe_b64decode(sealed.encode("ascii"))
        except ValueError:  # somebody has broken it by hand
            return None
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], about.encode()).decode()
            except (InvalidTag, ValueError):
                continue
        return None


def _key(secret: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"pollux sealed secrets, AES-256-GCM").derive(secret)
