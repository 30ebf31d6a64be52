"""What owners have used, by day and model.

What a cached response has used is counted by the very step that ends it (`transition` in the prelude). What has passed
through on its way from a provider is counted here. Each count has a token, and counts once however often it comes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from storage.connection import Connections, answered
from storage.keys import Shard, Shards
from storage.scripts import COUNT_USAGE, READ_HASHES, Word
from storage.spent import Spent, decode_day, encode_spent
from storage.terms import Terms

PAGE_DAYS = 62
"""How many days are read in one call, which other commands have to wait for."""
PAGE_OWNERS = 256
"""How many names of owners are read in one call."""


@dataclass(frozen=True, slots=True)
class Counted:
    """One count: what an owner has used on a day."""

    owner: str
    day: date
    spent: Spent
    token: str
    """Of several counts with this token, the first one counts."""
    token_s: float
    """How long the token is remembered."""


class Usage:
    """The usage of all owners, from any process."""

    def __init__(self, connections: Connections, shards: int, terms: Terms) -> None:
        self._client = connections.commands
        self._terms = terms
        self.shards = Shards(shards)

    async def count(self, shard: Shard, counts: Sequence[Counted]) -> None:
        """Add up the counts of owners in one shard. A call that is repeated adds nothing.

        Raises:
            StoreError
        """
        keys: list[str] = []
        words: list[Word] = []
        for one in counts:
            keys += (shard.usage(one.day, one.owner), shard.counted(one.token))
            words += (one.owner, encode_spent(one.spent), int(one.token_s * 1000))
        await COUNT_USAGE.run(
            self._client, usage_owners=shard.usage_owners, pairs=keys, usage_ms=self._terms.usage_ms, counts=words
        )

    async def read(self, owner: str, days: Sequence[date]) -> list[list[Spent]]:
        """What an owner has used on each of these days, by model.

        Raises:
            StoreError
        """
        shard = self.shards.of(owner)
        found: list[list[Spent]] = []
        for place in range(0, len(days), PAGE_DAYS):
            keys = [shard.usage(day, owner) for day in days[place : place + PAGE_DAYS]]
            found += map(decode_day, await READ_HASHES.run(self._client, hashes=keys))
        return found

    async def owners(self) -> AsyncIterator[str]:
        """All owners that have used anything within `usage_retention_s`, in no order, each once unless new ones come.

        Raises:
            StoreError
        """
        for shard in self.shards:
            place = 0
            while True:
                async with answered(self._client):
                    page: Any = await self._client.zrange(shard.usage_owners, place, place + PAGE_OWNERS - 1)
                for member in page:
                    yield member.decode("utf-8", "replace")
                if len(page) < PAGE_OWNERS:
                    break
                place += PAGE_OWNERS
