"""Endpoints of webhooks: from the config, from their owners through the API, or for one response alone."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from server.config import Config
from server.config.ours import Webhook
from server.config.sections import ConfigError
from server.outbox.addresses import NotAllowed, check_url
from server.protocol import jsontext
from server.protocol.lifecycle import Status
from server.protocol.status_events import kind_of, status_of
from server.protocol.webhook_secrets import encode_secret, hint_of
from server.sealing import Sealer

STATUSES = tuple(status for status in Status if status.terminal)
"""The ends of a response: of these an endpoint can be told."""
OLD_SECRET_S = 24 * 3600
"""How long the previous secret still signs after a rotation that keeps it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send, and what to sign with: several secrets while one of them is replaced."""

    url: str
    secrets: tuple[str, ...] = field(repr=False)


def new_secret() -> str:
    return encode_secret(secrets.token_bytes(32))


def endpoint_id(*about: str) -> str:
    """A short id, always the same for the same."""
    return f"we_{hashlib.sha256(chr(0).join(about).encode()).hexdigest()[:24]}"


class Configured:
    """The endpoints in the config."""

    def __init__(self, webhooks: Sequence[Webhook], *, private: bool = False) -> None:
        """Raises ConfigError if one of them may not be sent to."""
        self._webhooks: dict[str, Webhook] = {}
        for number, one in enumerate(webhooks):
            try:
                check_url(one.url, private=private)
            except NotAllowed as error:
                raise ConfigError(f"pollux.webhooks[{number}].url can't be used: {error}") from None
            self._webhooks[endpoint_id("config", one.url, *one.events, *(one.keys or ("*",)))] = one

    @classmethod
    def in_config(cls, config: Config) -> Configured:
        """Those of a config. Raises ConfigError."""
        return cls(config.pollux.webhooks, private=config.pollux.webhook_allow_private)

    def telling(self, owner: str, status: str) -> tuple[str, ...]:
        """The ids of those that want to be told of such an end of one of this owner's responses."""
        return tuple(
            found
            for found, one in self._webhooks.items()
            if kind_of(status) in one.events and (one.keys is None or owner in one.keys)
        )

    def get(self, endpoint: str) -> Endpoint | None:
        found = self._webhooks.get(endpoint)
        return None if found is None else Endpoint(found.url, (found.secret.get_secret_value(),))


# For one response alone.


def sealed_for_response(sealer: Sealer, owner: str, url: str, secret: str | None) -> str:
    """As the record keeps it: an id, and what only we can read.

    All of one owner that lead to one host share a queue, because URLs often name the job: with a queue for each, a host
    that hangs would never be found to fail again and again, and would take all the tries that there are.
    """
    sealed = sealer.seal(jsontext.dumps({"url": url, "secret": secret}).decode())
    return f"{endpoint_id('response', owner, urlsplit(url).netloc.lower())} {sealed}"


def unsealed(sealer: Sealer, sealed: str) -> Endpoint | None:
    text = sealer.unseal(sealed)
    if text is None:
        return None
    about = jsontext.loads(text.encode())
    return Endpoint(about["url"], (about["secret"],) if about["secret"] else ())


# Stored by their owners.


@dataclass(slots=True)
class Stored:
    """An endpoint as its owner manages it."""

    id: str
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int
    sealed: str
    """The secret."""
    hint: str
    old_sealed: str = ""
    """The secret before it, while that still signs."""
    old_until: int = 0

    def as_bytes(self) -> bytes:
        about: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        return jsontext.dumps({**about, "statuses": list(map(status_of, self.event_types))})

    @classmethod
    def from_bytes(cls, endpoint: str, raw: bytes) -> Stored | None:
        """None if it can't be read."""
        try:
            about = jsontext.loads(raw)
        except ValueError:
            return None
        if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in _FIELDS.items()):
            return None
        if not all(isinstance(one, str) for one in about["event_types"]):
            return None
        return cls(endpoint, **{name: about[name] for name in _FIELDS})

    def give_secret(self, sealer: Sealer, secret: str, now_s: int, *, keep_old: bool = False) -> None:
        self.old_sealed, self.old_until = (self.sealed, now_s + OLD_SECRET_S) if keep_old else ("", 0)
        self.sealed, self.hint, self.updated_at = sealer.seal(secret), hint_of(secret), now_s

    def endpoint(self, sealer: Sealer, now_s: float) -> Endpoint | None:
        """None if its secret was sealed with an id secret that is no longer known."""
        sealed = [self.sealed, *([self.old_sealed] if self.old_sealed and now_s < self.old_until else [])]
        found = [secret for one in sealed if (secret := sealer.unseal(one))]
        return Endpoint(self.url, tuple(found)) if found else None


_FIELDS = {
    **dict.fromkeys(("name", "url", "sealed", "hint", "old_sealed"), str),
    **dict.fromkeys(("created_at", "updated_at", "old_until"), int),
    "event_types": list,
}
