"""API keys as this process keeps them: as hashes only, from the moment in which the config is read.

A hash is keyed with random bytes of the process. So what leaks of its memory can be compared neither with a list of
known keys nor with the memory of another process; and because no client can foresee a hash, the time that a look-up by
one takes tells nothing about the keys.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_OF_THIS_PROCESS = secrets.token_bytes(32)


class HashedKey(bytes):
    """The hash of a key. In a config it stands where the file has the key itself."""

    __slots__ = ()

    @classmethod
    def of(cls, key: str) -> Self:
        # Keyed BLAKE2 is a message authentication code as HMAC is (RFC 7693), and each request waits for it.
        text = key.encode("utf-8", "surrogateescape")
        return cls(hashlib.blake2b(text, key=_OF_THIS_PROCESS, digest_size=32).digest())

    def __repr__(self) -> str:
        return "HashedKey()"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        # As pydantic shows a secret.
        hidden = core_schema.plain_serializer_function_ser_schema(
            lambda _: "**********", return_schema=core_schema.str_schema()
        )
        return core_schema.no_info_after_validator_function(
            cls.of, core_schema.str_schema(min_length=1), serialization=hidden
        )


def _listed(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


HashedKeys = Annotated[list[HashedKey], BeforeValidator(_listed)]
"""One key, or a list of keys that count alike."""
