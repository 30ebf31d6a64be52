"""What the feed of a shard holds: the changes of responses' statuses, and their places."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a shard's feed is kept."""

    most: int = 200_000
    """Entries; beyond it the oldest go first."""
    for_s: float = 24 * 3600
    """Seconds."""


DAY = Retention()


def this_minute() -> int:
    """The present minute, counted from the beginning of Unix's time."""
    return int(time.time() // 60)


class Place(NamedTuple):
    """A place in the feed of a shard: the id of an entry. Ids grow, and are made of the server's clock."""

    ms: int
    number: int = 0

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


_PLACE = re.compile(r"(\d{1,15})-(\d{1,15})")


def parse_place(text: str) -> Place | None:
    """A place as `str` writes it."""
    found = _PLACE.fullmatch(text)
    return Place(int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """One change of a response's status, as the feed keeps it."""

    place: Place
    status: str
    """The status that the response took, or `deleted`."""
    response_id: str
    owner: str
    model: str
    metadata: bytes
    """What the client gave, JSON; empty where it gave none."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Consecutive entries behind a place, and what of the feed is kept."""

    entries: tuple[StatusEntry, ...]
    oldest: Place | None
    """Of what is kept; None where nothing is."""
    newest: Place
    """The end of the feed: what comes later lies behind it."""
    missing: bool = False
    """Whether entries between the place and `oldest` may have been dropped, because of their age or number."""
