"""The terms on which a process writes to the store: its config decides them, and all its writers share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from storage.keys import DELIVERY_TTL_MS, Shard
from storage.owed import Hooks, no_hooks
from storage.packing import pack
from storage.records import Durability
from storage.scripts import Word
from storage.statuses import DAY, Retention


@dataclass(frozen=True)
class Terms:
    durability: Durability = Durability.NONE
    packed: bool = True
    """Whether new events are stored compressed."""
    retention: Retention = DAY
    hooks: Hooks = no_hooks

    @property
    def pack(self) -> Callable[[bytes], bytes]:
        return pack if self.packed else bytes

    def feed_words(self, shards: int) -> dict[str, Word]:
        """What every script that changes a status is told of the feed of its shard."""
        return {"feed_most": max(1, self.retention.most // shards), "feed_ms": int(self.retention.for_s * 1000)}

    def outbox_words(self, shard: Shard, owner: str, status: str) -> dict[str, Word]:
        """What every script that ends a response is told of whom it owes the event to."""
        return {
            "endpoints": shard.endpoints(owner),
            "endpoints_due": shard.endpoints_due,
            "due_prefix": shard.due(""),
            "delivery_prefix": shard.delivery(""),
            "paused_prefix": shard.paused(""),
            "delivery_ms": DELIVERY_TTL_MS,
            "hooks": " ".join(self.hooks(owner, status)),
        }
