"""Following a cached response: replay and follow are one loop over its event log, on any replica.

What it gives are bytes; a stream of server-sent events to an HTTP client is one use of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from server.errors import ResponseNotFound
from server.eventlog import bytes_after, frames_after
from server.hub import Hub
from server.protocol.events import strip_obfuscation
from server.responses.tails import Tails
from storage import Batch, Cursor, Reading, steps_and_end

CHUNK_BYTES = 64 * 1024
"""So much is gathered: as much as a transport takes before it asks to wait."""
EPOCH = 1
"""A response that was created with `stream` is never run again once a provider's event was logged."""


class Cut(Exception):
    """It ends here for this follower, before the terminal event: the process drains, or the response is gone."""


@dataclass
class Follower:
    """One on the way through one log, from behind the event `last`."""

    tails: Tails
    hub: Hub
    response_id: str
    last: int = -1
    obfuscation: bool = True
    _gave: bool = False

    async def follow(self, *, tick_s: float) -> AsyncGenerator[bytes, None]:
        """The frames behind `last`, many together, up to and with the terminal one; then it ends.

        The first chunk comes at once, and may be empty: the response exists. So may those that come every `tick_s`.

        Raises:
            ResponseNotFound: before anything is given
            Cut
            StoreError

        """
        reading = await self._read()
        if reading is None:
            raise ResponseNotFound(self.response_id)
        yield b""
        readings = self.hub.observe(steps_and_end(self.response_id), self._read, tick_s=tick_s)
        async with aclosing(readings):
            async for reading in readings:
                newest = reading
                while newest is not None:
                    for chunk in self._chunks(newest.batches):
                        yield chunk
                    if newest.reaches_end:
                        break
                    newest = await self._read()
                if newest is None:
                    raise Cut
                if self._has_all(newest):
                    return
                yield b""
        raise Cut

    async def _read(self) -> Reading | None:
        return await self.tails.read_log(self.response_id, Cursor(EPOCH, max(self.last, -1)))

    def _has_all(self, reading: Reading) -> bool:
        """Whether the end was given."""
        if not reading.record.terminal:
            return False
        if self._gave and self.last > reading.record.cursor.last:
            raise Cut  # a failover lost what this follower has, and it ended otherwise
        return self.last >= reading.record.cursor.last

    def _chunks(self, batches: tuple[Batch, ...]) -> list[bytes]:
        """Small batches together: each chunk becomes a packet, and a third of what a reader costs."""
        self._gave = self._gave or bool(batches)
        chunks: list[bytes] = []
        gathered: list[bytes] = []
        size = 0
        for batch in batches:
            gathered.append(self._bytes_of(batch))
            size += len(gathered[-1])
            self.last = batch.cursor.last
            if size > CHUNK_BYTES:
                chunks.append(b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            chunks.append(b"".join(gathered))
        return chunks

    def _bytes_of(self, batch: Batch) -> bytes:
        if self.obfuscation:
            return bytes_after(batch, self.last)
        return b"".join(strip_obfuscation(frame) for frame in frames_after(batch, self.last))
