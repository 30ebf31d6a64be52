"""The terms on which a process writes to the store: its config decides them, and all its writers share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from storage.keys import DELIVERY_TTL_MS, TALLY_TTL_MS, Shard
from storage.owed import Hooks, no_hooks
from storage.packing import pack
from storage.records import Durability
from storage.scripts import Word
from storage.spent import Spent, encode_spent, today
from storage.statuses import DAY, Retention, this_minute


@dataclass(frozen=True)
class Ledger:
    """How usage is kept."""

    for_s: float = 400 * 24 * 3600
    """Seconds."""
    label: Callable[[str], str] = str
    """The name under which a model's usage is counted. There must be few: a day has fields for each of them."""


LEDGER = Ledger()


@dataclass(frozen=True)
class Terms:
    durability: Durability = Durability.NONE
    packed: bool = True
    """Whether new events are stored compressed."""
    retention: Retention = DAY
    hooks: Hooks = no_hooks
    ledger: Ledger = LEDGER

    @property
    def pack(self) -> Callable[[bytes], bytes]:
        return pack if self.packed else bytes

    def feed_words(self, shard: Shard, shards: int) -> dict[str, Word]:
        """What every script that changes a status is told of where it is told: the feed of its shard, and the tally.

        The minute is that of our clock and not of the server's, because a script's keys must be named by its caller.
        """
        return {
            "feed": shard.feed,
            "tally": shard.tally(this_minute()),
            "feed_most": max(1, self.retention.most // shards),
            "feed_ms": int(self.retention.for_s * 1000),
            "tally_ms": TALLY_TTL_MS,
        }

    @property
    def usage_ms(self) -> int:
        return int(self.ledger.for_s * 1000)

    def usage_words(self, shard: Shard, owner: str, model: str) -> dict[str, Word]:
        """What every script that ends a response is told of where its usage is counted.

        The day is that of our clock and not of the server's, because a script's keys must be named by its caller.
        """
        return {
            "usage": shard.usage(today(), owner),
            "usage_owners": shard.usage_owners,
            "usage_ms": self.usage_ms,
            "untold": encode_spent(Spent(self.ledger.label(model))),
        }

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
