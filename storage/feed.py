"""The feed: the log of all changes of status in a shard, written by the very step that changes a status."""

from __future__ import annotations

from typing import Any

from storage.connection import Connections
from storage.keys import Shard, Shards
from storage.scripts import READ_FEED
from storage.statuses import DAY, FeedPage, Place, Retention, StatusEntry, parse_place

PAGE_ENTRIES = 500
"""How many entries are read in one go."""

_NAMES = (b"t", b"r", b"o", b"m")


class Feed:
    """The feeds of all shards, from any process."""

    def __init__(self, connections: Connections, shards: int, retention: Retention = DAY) -> None:
        self._client = connections.commands
        self._kept_ms = int(retention.for_s * 1000)
        self.shards = Shards(shards)

    async def read(self, shard: Shard, after: Place, limit: int = PAGE_ENTRIES) -> FeedPage:
        """The entries behind a place, at most `limit`.

        Raises:
            StoreError
        """
        now_ms, first, last, dropped, page = await READ_FEED.run(
            self._client, feed=shard.feed, after=str(after), most=limit
        )
        oldest = parse_place(first.decode())
        # Where nothing is kept, the end is just before now: whatever comes lies behind it.
        newest = parse_place(last.decode()) or Place(now_ms - 1)
        # A feed that was silent for its whole retention is gone, and with it the count of what was dropped.
        missing = after < newest and (after.ms < now_ms - self._kept_ms or bool(dropped and oldest and after < oldest))
        return FeedPage(tuple(map(_entry, page)), oldest, newest, missing)


def _entry(entry: Any) -> StatusEntry:
    at, words = entry
    fields = dict(zip(words[::2], words[1::2], strict=True))
    status, response_id, owner, model = (fields.get(name, b"").decode("utf-8", "replace") for name in _NAMES)
    ms, number = map(int, at.split(b"-"))
    return StatusEntry(Place(ms, number), status, response_id, owner, model, fields.get(b"d", b""))
