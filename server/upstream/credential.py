"""Credentials: what a deployment shows with each request: a key that never changes, a token that ends, a signature.

A credential says how access is obtained, and is immutable; `grants` keeps what was obtained. Credentials that are equal
belong to one account, and share what was obtained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import aiohttp

OBTAINED_WITHIN_S = 30.0
"""The longest that obtaining a grant may take. Blocking libraries get half of it for each request that they make."""


class NotGranted(Exception):
    """No grant was obtained. The message says why, without a secret: it is logged."""


class Outgoing(NamedTuple):
    """A request that is about to be sent."""

    method: str
    url: str
    body: bytes | None


class Grant(Protocol):
    """Access for a limited time."""

    @property
    def lifetime_s(self) -> float | None:
        """How long it was good for when it was asked for; None: for ever."""

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        """The headers by which this request is let in."""


class Credential(Protocol):
    """How a deployment gets access. It can be compared, hashed, and shown in a log: it shows no secret."""

    @property
    def told(self) -> str:
        """What it is, as `check-config` tells it."""

    async def obtain(self, http: aiohttp.ClientSession) -> Grant:
        """A new grant. The caller bounds the time, and never asks twice at once.

        Raises:
            NotGranted, aiohttp.ClientError, OSError, TimeoutError

        """


@dataclass(frozen=True, slots=True)
class Bearer:
    """A grant by a token."""

    token: str = field(repr=False)
    lifetime_s: float | None

    async def headers(self, _outgoing: Outgoing) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class _Nothing:
    """The grant of a deployment whose own headers hold its key, if it needs one."""

    lifetime_s: float | None = None

    async def headers(self, _outgoing: Outgoing) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class Static:
    """A key that is among the deployment's own headers, or none."""

    told: str = ""

    async def obtain(self, _http: aiohttp.ClientSession) -> Grant:
        return _Nothing()


STATIC: Credential = Static()
