"""How full the store is."""

from __future__ import annotations

import redis

from storage import Store
from tests.support.servers import configured


async def test_the_memory_of_the_fullest_server_and_its_limit_are_told(store: Store, admin: redis.Redis) -> None:
    with configured(admin, maxmemory="4gb"):
        room = await store.room()
        assert 0 < room.used_bytes < room.limit_bytes == 4 * 1024**3
        assert room.share == room.used_bytes / room.limit_bytes
    with configured(admin, maxmemory="0"):
        room = await store.room()
        assert (room.limit_bytes, room.share) == (0, 0)
