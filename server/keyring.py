"""API keys: finds the principal that a key stands for, and what it may use. Keys are kept in memory only as hashes."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from server.config import Config
from server.config.ours import GUEST, Key
from server.config.sections import ConfigError
from server.errors import Unauthorized
from server.keyhash import HashedKey

MASTER = "master"


def is_guest(owner: str) -> bool:
    """Whether the key of this owner is not in the config (`accept_any_key`). Only a provider can tell who it is."""
    return GUEST.fullmatch(owner) is not None


@dataclass(frozen=True, slots=True)
class ClientKey:
    """The key that a client has sent, for a provider that is to get it."""

    value: str = field(repr=False)
    owner: str

    def hidden_in(self, text: str) -> str:
        """The text, in which no more is left of the key than its owner needs to recognise it.

        Its hash is hidden too: a LiteLLM proxy names a key that it refuses by both.
        """
        digest = hashlib.sha256(self.value.encode("utf-8", "surrogateescape")).hexdigest()
        return text.replace(self.value, masked(self.value)).replace(digest, "…")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who an API key stands for."""

    name: str
    """The owner of the responses that it creates."""
    models: frozenset[str] | None = None
    """The models it may use; None: all."""
    max_in_flight: int | None = None
    """How many of its cached responses may be unfinished at once; None: any number."""

    requests_per_minute: int | None = None
    """How many creates, of every mode, it may make within any minute; None: any number."""

    @property
    def is_master(self) -> bool:
        return self.name == MASTER

    @property
    def is_guest(self) -> bool:
        return is_guest(self.name)

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def may_see(self, owner: str) -> bool:
        return self.is_master or owner == self.name


class Keyring:
    """All configured keys. If there are none, every caller is the master, unless any key is accepted."""

    def __init__(self, config: Config, secret: bytes = b"") -> None:
        """`secret`: makes the names of guests, so it must always be the same."""
        self._takes_guests = config.pollux.accept_any_key
        self._secret = secret
        self._principals = {key.key: _principal(key) for key in config.pollux.keys}
        self._principals |= dict.fromkeys(config.master_keys(), Principal(MASTER))
        self._for_metrics = frozenset(config.pollux.metrics_key)

    @property
    def empty(self) -> bool:
        return not self._principals and not self._takes_guests

    @property
    def owners(self) -> list[str]:
        """The names of all principals."""
        return list(dict.fromkeys(principal.name for principal in self._principals.values()))

    def known_as(self, name: str) -> Principal | None:
        """The principal of this name. Of several keys with it, one is enough to use a model."""
        if self.empty:
            return Principal(MASTER)
        if is_guest(name):
            return Principal(name) if self._takes_guests else None
        known = [principal for principal in self._principals.values() if principal.name == name]
        if not known:
            return None
        models = [principal.models for principal in known]
        allowed = None if None in models else frozenset().union(*(some for some in models if some is not None))
        return replace(known[0], models=allowed)

    def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The principal of a request, by `Authorization: Bearer`, else `api-key`, `x-litellm-api-key`, `x-api-key`.

        Raises:
            Unauthorized

        """
        if self.empty:
            return Principal(MASTER)
        key = _presented(headers)
        if not key:
            raise Unauthorized("You didn't provide an API key. Send it in the header Authorization: Bearer YOUR_KEY.")
        hashed = HashedKey.of(key)
        if found := self._principals.get(hashed):
            return found
        # Keys with other characters can't stand in a header, so no provider could be asked about them.
        if self._takes_guests and hashed not in self._for_metrics and key.isascii() and key.isprintable():
            return Principal(self._name_of_guest(key))
        raise Unauthorized(f"Incorrect API key provided: {masked(key)}.")

    def _name_of_guest(self, key: str) -> str:
        """The owner's name of a key that is not listed: the same in every process, and of no use to find the key."""
        hashed = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return f"key-{hmac.digest(self._secret, b'owner of a key' + hashed, hashlib.sha256).hex()[:16]}"

    def client_key(self, headers: Mapping[str, str], principal: Principal) -> ClientKey | None:
        """The key of this principal's request, if providers may get it: the master key opens all that is here."""
        key = None if principal.is_master and not self.empty else _presented(headers)
        return ClientKey(key, principal.name) if key else None

    def authenticate_scraper(self, headers: Mapping[str, str]) -> None:
        """Let pass whoever has a `metrics_key` or a master key.

        Raises:
            Unauthorized

        """
        key = _presented(headers)
        if self._for_metrics:
            if key and HashedKey.of(key) in self._for_metrics:
                return
            if self.empty:
                raise Unauthorized("The metrics need pollux.metrics_key, in the header Authorization: Bearer THE_KEY.")
        if not self.authenticate(headers).is_master:
            raise Unauthorized("The metrics need the master key, or pollux.metrics_key.")


def _principal(key: Key) -> Principal:
    models = None if key.models is None else frozenset(key.models)
    return Principal(key.name, models, key.max_in_flight, key.requests_per_minute)


def _presented(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for name in ("api-key", "x-litellm-api-key", "x-api-key"):
        if value := headers.get(name, "").strip():
            # LiteLLM's own header may carry the scheme too.
            return value.removeprefix("Bearer ").strip()
    return None


def masked(key: str) -> str:
    """The first three and the last four characters of a key, by which its owner can recognise it."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in key)
    return f"{shown[:3]}…{shown[-4:]}" if len(shown) >= 12 else "…"


def check_exposure(config: Config, host: str) -> None:
    """Refuse to serve other machines while no key is configured.

    Raises:
        ConfigError

    """
    open_to_all = Keyring(config).empty
    if open_to_all and not config.pollux.allow_unauthenticated and not is_loopback(host):
        raise ConfigError(
            f"no key is configured, so Pollux serves loopback only, not {host}: set general_settings.master_key "
            "or pollux.keys, or pollux.allow_unauthenticated: true"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
