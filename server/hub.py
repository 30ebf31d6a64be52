"""The hub: one store subscription for each process, fanned out to all its waiters and subscribers.

A notification says no more than "look again", and each reader then reads the store from its own cursor. So no reader
needs a queue that could overflow, and if a notification is lost, the next sweep wakes the reader within `SWEEP_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar

from storage import Cursor, End, Shard, Steps, Store, StoreError, StoreUnavailable, Topic, Wake, by_shard

log = logging.getLogger("pollux.hub")

SWEEP_S = 10.0
"""How often the store is asked where all the responses are that have waiters here."""
PATIENCE_S = 15.0
"""How long a stream is held open while the store is away."""
SWEEP_IDS = 500
"""How many records one call of a sweep reads."""
PER_WATCH_S, LONGEST_REST_S = 0.0005, 0.1
"""A large crowd that waits for one response is woken together after a rest, which is longer the larger the crowd is:
200 readers of one response are woken ten times a second."""
CROWD = 20
"""Up to so many readers are woken at once by each notification: that costs less than a commit."""

T = TypeVar("T")


class Hub:
    """The waiters and subscribers of this process, and the topics that they wait for."""

    def __init__(self, store: Store, *, wake: Callable[[Shard], None], revoked: Callable[[str], None]) -> None:
        self._store = store
        self._on_wake = wake
        self._on_revoked = revoked
        self._listener = store.new_listener(self)
        self._watches: dict[Topic, set[asyncio.Event]] = {}
        """For each topic, the events of the waiters and subscribers that it wakes."""
        self._positions: dict[str, Cursor | None] = {}
        """For each watched response, the newest place that a notification or a sweep told."""
        self._resting: dict[Topic, asyncio.TimerHandle] = {}
        self.waiters = 0
        """How many observe until a deadline."""
        self.draining = False
        self.closed = False

    # Called by the listener.

    def heard(self, topic: Topic, to: Cursor | None) -> None:
        if isinstance(topic, Wake):
            self._on_wake(topic.shard)
        watches = self._watches.get(topic)
        if watches is None:
            return
        if isinstance(topic, Steps | End):
            self._positions[topic.response_id] = to
        if not isinstance(topic, Steps) or len(watches) <= CROWD:
            self._wake_all(topic)
        elif topic not in self._resting:
            rest_s = min(LONGEST_REST_S, PER_WATCH_S * len(watches))
            self._resting[topic] = asyncio.get_running_loop().call_later(rest_s, self._rested, topic)

    def revoked(self, response_id: str) -> None:
        self._on_revoked(response_id)

    def _rested(self, topic: Topic) -> None:
        self._resting.pop(topic, None)
        self._wake_all(topic)

    def _wake_all(self, topic: Topic) -> None:
        for changed in self._watches.get(topic, ()):
            changed.set()

    # Called by waiters and subscribers.

    async def observe(
        self,
        topics: Collection[Topic],
        read: Callable[[], Awaitable[T]],
        *,
        tick_s: float | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[T, None]:
        """Register, then read, then sleep. In any other order, a change between read and sleep would go unnoticed.

        Yields what `read` returns: at once, after each notification on one of the topics, after a sweep that found a
        response at a new place, and every `tick_s`. It yields for the last time when the deadline (on the loop's
        clock) has come or the process drains; without a deadline, when the hub is closed. While the store is away it
        goes on trying until the deadline.

        Raises:
            StoreUnavailable: the store was away when the deadline came, or (without one) for `PATIENCE_S`

        """
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        async with self.watch(topics, waits=deadline is not None) as changed:
            while True:
                changed.clear()
                over = self.closed or (deadline is not None and (self.draining or loop.time() >= deadline))
                try:
                    yield await read()
                    away_since = None
                except StoreUnavailable:
                    away_since = away_since or loop.time()
                    if over or (deadline is None and loop.time() - away_since > PATIENCE_S):
                        raise
                    await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311
                    continue
                if over:
                    return
                wake_at = None if tick_s is None else loop.time() + tick_s
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(_earlier(wake_at, deadline)):
                        await changed.wait()

    @asynccontextmanager
    async def watch(self, topics: Collection[Topic], *, waits: bool = False) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever one of the topics is heard of. It must be cleared before each look.

        `waits`: it counts as a waiter.
        """
        self.waiters += waits
        changed = asyncio.Event()
        topics = dict.fromkeys(topics)
        for topic in topics:
            self._watches.setdefault(topic, set()).add(changed)
        try:
            await self._listener.subscribe(topics)
            yield changed
        finally:
            self.waiters -= waits
            if left := [topic for topic in topics if self._leave(topic, changed)]:
                await self._listener.unsubscribe(left)

    def _leave(self, topic: Topic, changed: asyncio.Event) -> bool:
        """Remove a waiter from a topic. Returns whether it was the last one."""
        watches = self._watches[topic]
        watches.discard(changed)
        if watches:
            return False
        del self._watches[topic]
        if isinstance(topic, End):
            self._positions.pop(topic.response_id, None)
        if resting := self._resting.pop(topic, None):
            resting.cancel()
        return True

    # Services of the process.

    async def listen(self) -> None:
        """Hear notifications until cancelled."""
        await self._listener.run()

    async def sweep(self) -> None:
        """Every `SWEEP_S`, wake the readers of responses that have moved without a notification. Until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            waited_for = [topic.response_id for topic in self._watches if isinstance(topic, End)]
            shards = by_shard(waited_for, self._store.jobs.shards.of)
            await asyncio.gather(*map(self._sweep_shard, shards.values()))

    async def _sweep_shard(self, waited_for: list[str]) -> None:
        try:
            for start in range(0, len(waited_for), SWEEP_IDS):
                await self._sweep(waited_for[start : start + SWEEP_IDS])
        except StoreError as error:
            log.warning("sweep put off: %s", error)

    async def _sweep(self, ids: list[str]) -> None:
        for response_id, record in zip(ids, await self._store.responses.find_many(ids), strict=True):
            position = None if record is None else record.cursor
            if End(response_id) not in self._watches:
                continue  # its last reader left during the call
            if position is None or self._positions.get(response_id) != position:
                self._positions[response_id] = position
                over = record is None or record.terminal
                self._wake_all(End(response_id) if over else Steps(response_id))

    def drain(self) -> None:
        """Make every wait return the current state now. Streams go on."""
        self.draining = True
        self._wake_everybody()

    def close(self) -> None:
        """End every stream now."""
        self.closed = self.draining = True
        self._wake_everybody()

    def _wake_everybody(self) -> None:
        for topic in self._watches:
            self._wake_all(topic)


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)
