"""An ear that writes down what it hears, and a listener that talks to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from storage import Cursor, End, Listener, Steps, Store, Topic, Wake
from tests.support.waiting import wait_until

Move = tuple[str, Cursor | None, bool]
"""Which response, where to (None: look for yourself), and whether that may be its end."""


@dataclass
class Notes:
    """All that was heard, in order."""

    moves: list[Move] = field(default_factory=list)
    wakes: int = 0
    revocations: list[str] = field(default_factory=list)

    def heard(self, topic: Topic, to: Cursor | None) -> None:
        match topic:
            case Wake():
                self.wakes += 1
            case End(response_id):
                self.moves.append((response_id, to, True))
            case Steps(response_id) if to is not None:  # an acknowledgement is noted once, with that of the end
                self.moves.append((response_id, to, False))

    def revoked(self, response_id: str) -> None:
        self.revocations.append(response_id)

    async def hear(self, move: Move) -> None:
        await wait_until(lambda: move in self.moves, timeout_s=5, what=f"{move} in {self.moves}")


@asynccontextmanager
async def listening(store: Store) -> AsyncIterator[tuple[Listener, Notes]]:
    """A listener that is connected, and what it heard. Its own start is not in the notes."""
    notes = Notes()
    listener = store.new_listener(notes)
    task = asyncio.create_task(listener.run())
    try:
        # The acknowledgement of each shard's wake channel counts as a wake.
        await wait_until(lambda: notes.wakes >= store.shards)
        notes.wakes = 0
        yield listener, notes
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()
