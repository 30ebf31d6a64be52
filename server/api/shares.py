"""Shares: how many requests of one owner, and of one address behind a proxy, may be open at once in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from server.api.peers import Peers, Place
from server.api.room import COME_AGAIN_S
from server.config.ours import Pollux
from server.errors import RateLimited


class Shares:
    """What the config allows, and what is open, which outlives a config."""

    def __init__(self, ours: Pollux, taken: Counter[str]) -> None:
        self._of_owner, self._of_address = ours.max_open_per_key, ours.max_connections_per_address
        self._peers = Peers(ours.trusted_proxies)
        self._taken = taken
        self.bounded = bool(self._of_owner or (self._of_address and ours.trusted_proxies))
        """Whether there is any limit. Without one, nothing is counted."""

    @contextmanager
    def one(self, owner: str, place: Place, forwarded: Sequence[str], *, whatever: bool) -> Iterator[None]:
        """Count a request as open for the length of a block; with `whatever`, however many are open.

        `place` is where its connection comes from, `forwarded` the values of its `X-Forwarded-For`.

        Raises:
            RateLimited: one too many is open

        """
        shares: list[tuple[str, str, int]] = []
        if self._of_owner:
            shares.append(("key", owner, self._of_owner))
        if self._of_address and (address := self._peers.behind(place, forwarded)):
            shares.append(("address", address, self._of_address))
        for kind, name, limit in shares:
            if not whatever and self._taken[f"{kind} {name}"] >= limit:
                text = f"This {kind} has {limit} requests open here, its limit. Try again when one has ended."
                raise RateLimited(text, COME_AGAIN_S)
        for kind, name, _ in shares:
            self._taken[f"{kind} {name}"] += 1
        try:
            yield
        finally:
            for kind, name, _ in shares:
                self._taken[f"{kind} {name}"] -= 1
                if not self._taken[f"{kind} {name}"]:
                    del self._taken[f"{kind} {name}"]
