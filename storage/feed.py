"""The feed: the log of all changes of status in a shard, written by the very step that changes a status."""

from __future__ import annotations

import re
from typing import Any

from storage.connection import Connections
from storage.keys import Shard, Shards
from storage.records import FeedPage, Place, StatusEntry
from storage.scripts import READ_FEED

PAGE_ENTRIES = 500
"""How many entries are read in one go."""

_NAMES = (b"t", b"r", b"o", b"m")
_PLACE = re.compile(r"(\d{1,15})-(\d{1,15})")


class Feed:
    """The feeds of all shards, from any process."""

    def __init__(self, connections: Connections, shards: int) -> None:
        self._client = connections.commands
        self.shards = Shards(shards)

    async def read(self, shard: Shard, after: Place, limit: int = PAGE_ENTRIES) -> FeedPage:
        """The entries behind a place, at most `limit`.

        Raises:
            StoreError
        """
        now_ms, oldest, newest, page = await READ_FEED.run(self._client, feed=shard.feed, after=str(after), most=limit)
        # Nothing is kept: what comes is later than a millisecond ago.
        end = parse_place(newest.decode()) or Place(now_ms - 1)
        return FeedPage(tuple(map(_entry, page)), parse_place(oldest.decode()), end)


def parse_place(text: str) -> Place | None:
    """A place as `str` writes it."""
    found = _PLACE.fullmatch(text)
    return Place(int(found[1]), int(found[2])) if found else None


def _entry(entry: Any) -> StatusEntry:
    at, words = entry
    fields = dict(zip(words[::2], words[1::2], strict=True))
    status, response_id, owner, model = (fields.get(name, b"").decode("utf-8", "replace") for name in _NAMES)
    ms, number = map(int, at.split(b"-"))
    return StatusEntry(Place(ms, number), status, response_id, owner, model, fields.get(b"d", b""))
