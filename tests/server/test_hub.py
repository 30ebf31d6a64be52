"""The one correct order: register, clear, read, sleep. What happens while a reader reads is never missed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

from server.hub import Hub
from storage import Cursor, End, Steps, Store, Topic, steps_and_end

ID = "litellm_poll_x"


class Listener:
    """Subscribes at once; what is heard, the test says."""

    async def subscribe(self, _topics: Collection[Topic]) -> None:
        """Nothing to wait for."""

    async def unsubscribe(self, _topics: Collection[Topic]) -> None:
        """Nothing to do."""


def new_hub() -> Hub:
    store: Any = SimpleNamespace(new_listener=lambda _ear: Listener())
    return Hub(cast("Store", store), wake=lambda _shard: None, revoked=lambda _id: None)


async def test_a_notification_that_comes_during_a_read_leads_to_another_read() -> None:
    hub = new_hub()
    reads = 0

    async def read() -> int:
        nonlocal reads
        reads += 1
        if reads == 1:
            # The store has answered already, and then it moves: this answer does not hold it.
            hub.heard(Steps(ID), Cursor(1, 7))
        return reads

    async with asyncio.timeout(5), aclosing(hub.observe(steps_and_end(ID), read)) as states:
        assert [await anext(states), await anext(states)] == [1, 2]


async def test_who_waits_for_the_end_alone_sleeps_through_all_steps() -> None:
    hub = new_hub()
    reads = 0

    async def read() -> int:
        nonlocal reads
        reads += 1
        return reads

    async with asyncio.timeout(5), aclosing(hub.observe([End(ID)], read)) as states:
        assert await anext(states) == 1
        following = asyncio.ensure_future(anext(states))
        await asyncio.sleep(0)
        hub.heard(Steps(ID), Cursor(1, 7))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not following.done()
        hub.heard(End(ID), Cursor(1, 8))
        assert await following == 2
