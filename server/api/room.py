"""The room of a process: how many connections it has, in all and from each address."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from server.api.peers import Peers, Place
from server.errors import PolluxError, RateLimited, Unavailable

MOST_REFUSED = 32
"""How many connections above the limit get an answer before they are closed. Further ones are dropped without one."""
SCARCE = 0.9
"""From this share of the limit on, connections that wait for another request are closed to make room."""
COME_AGAIN_S = 5


class Full(Exception):
    """There is not even room to say so."""


@dataclass
class Room:
    """Counts connections. Whoever enters must leave once."""

    most: int
    """How many connections may be open."""
    most_of_address: int | None = None
    """How many of them one address may have; None: any number. Proxies that are trusted have no such limit."""
    peers: Peers = field(default_factory=Peers)
    taken: int = 0
    _of_address: Counter[str] = field(default_factory=Counter)

    @property
    def scarce(self) -> bool:
        return self.taken >= SCARCE * self.most

    def enter(self, place: Place) -> PolluxError | None:
        """Count one more connection from there. Returns the error to answer it with if it is one too many.

        Raises:
            Full: it is to be dropped; it was counted all the same

        """
        self.taken += 1
        address = self._limited(place)
        if address:
            self._of_address[address] += 1
        if self.taken > self.most + MOST_REFUSED:
            raise Full
        if self.taken > self.most:
            return Unavailable("This instance has no room for another connection. Try again shortly.")
        limit = self.most_of_address
        if not address or limit is None or self._of_address[address] <= limit:
            return None
        if self._of_address[address] > limit + MOST_REFUSED:
            raise Full
        return RateLimited(f"Your address has {limit} connections open, which is all that one may have.", COME_AGAIN_S)

    def leave(self, place: Place) -> None:
        self.taken -= 1
        if address := self._limited(place):
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def _limited(self, place: Place) -> str | None:
        """The address that the connection counts for, if it counts for any."""
        if self.most_of_address is None:
            return None
        return self.peers.counted(place)
