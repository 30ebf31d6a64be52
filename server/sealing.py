"""Sealing: secrets of others, which the store keeps for us, encrypted so that nobody who reads the store learns them.

The keys are derived from `id_secrets`. Without any in the config they come from a secret that lies in the same store:
then sealing protects backups of single keys, but not a copy of the whole store.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Sealer:
    """Encrypts with the first secret, and decrypts what any of them has encrypted."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(_key(secret)) for secret in secrets])

    def seal(self, text: str) -> str:
        """The text, encrypted and signed: visible ASCII without spaces."""
        return self._fernet.encrypt(text.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """The text; None if it was sealed with another secret, or is broken."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeError):  # the latter for what somebody has broken by hand
            return None


def _key(secret: bytes) -> bytes:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"pollux sealed secrets").derive(secret)
    return base64.urlsafe_b64encode(derived)
