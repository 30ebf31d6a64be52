"""How many requests an owner makes, counted for all processes together."""

from __future__ import annotations

from storage.connection import Connections
from storage.keys import Shards
from storage.scripts import COUNT_REQUEST


class Rates:
    """The requests of the last minute, for each owner that has a limit."""

    def __init__(self, connections: Connections, shards: int) -> None:
        self._client = connections.commands
        self._shards = Shards(shards)

    async def count(self, owner: str, token: bytes, most: int) -> float:
        """Count a request, unless `most` were counted in the last minute: never more are within any minute.

        Returns 0, or after how many seconds there is room for one. `token` is the request's own: a call that is
        repeated with the same one counts it once.

        Raises:
            StoreError

        """
        requests = self._shards.of(owner).requests(owner)
        wait_ms: int = await COUNT_REQUEST.run(self._client, requests=requests, token=token, most=most)
        return wait_ms / 1000
