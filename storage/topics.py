"""The topics that a process can listen to. Only this module knows on which channels a topic is published."""

from __future__ import annotations

from dataclasses import dataclass

from storage.keys import Shard, Shards


@dataclass(frozen=True, slots=True)
class Steps:
    """Every move of a response before its end."""

    response_id: str


@dataclass(frozen=True, slots=True)
class End:
    """That a response has ended, or that its record is gone: deleted, expired or evicted."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Wake:
    """That a job was queued in a shard."""

    shard: Shard


@dataclass(frozen=True, slots=True)
class Revoked:
    """Which responses of a shard are cancelled or deleted."""

    shard: Shard


@dataclass(frozen=True, slots=True)
class Fed:
    """That the feed of a shard has grown: a response of it changed its status."""

    shard: Shard


@dataclass(frozen=True, slots=True)
class Owed:
    """That an endpoint of a shard is owed an event."""

    shard: Shard


Topic = Steps | End | Wake | Revoked | Fed | Owed


def steps_and_end(response_id: str) -> tuple[Topic, ...]:
    """Everything that happens to a response."""
    return (Steps(response_id), End(response_id))


def channels_of(topic: Topic, shards: Shards, keyspace: str) -> list[str]:
    """The channels of a topic. `keyspace`: the prefix of the channel that tells of a key.

    They are subscribed to in this order, so once the last one is acknowledged, all of them are.
    """
    match topic:
        case Steps(response_id):
            return [shards.of(response_id).moved(response_id)]
        case End(response_id):
            shard = shards.of(response_id)
            return [keyspace + shard.record(response_id), shard.over(response_id)]
        case Wake(shard):
            return [shard.wake]
        case Revoked(shard):
            return [shard.revoked]
        case Fed(shard):
            return [shard.feed]
        case Owed(shard):
            return [shard.endpoints_due]
