"""How full the servers are: what they keep lies in memory, and a server that is full takes nothing new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from storage.cluster import Cluster
from storage.connection import Connections, answered, ask
from storage.errors import StoreUnavailable


class Room(NamedTuple):
    """The memory of one server."""

    used_bytes: int
    limit_bytes: int
    """`maxmemory`; 0 if there is none."""

    @property
    def share(self) -> float:
        """How much of it is used; 0 without a limit."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes else 0.0


async def room_at(connections: Connections) -> Room:
    """The memory of the server; of a cluster, that of the fullest primary among those that answer.

    Raises:
        StoreUnavailable

    """
    client = connections.commands
    if not isinstance(client, Cluster):
        async with answered(client):
            return _room(await ask(client, "INFO", "memory"))
    found: list[Room] = []
    for node in client.get_primaries():
        try:
            async with answered(client):
                found.append(_room(await ask(client, "INFO", "memory", target_nodes=node)))
        except StoreUnavailable:
            continue  # whoever needs that node hears of it
    if not found:
        raise StoreUnavailable("no node of the cluster answers")
    return max(found, key=lambda room: (room.share, room.used_bytes))


def _room(about: Mapping[str, Any]) -> Room:
    return Room(int(about.get("used_memory", 0)), int(about.get("maxmemory", 0)))
