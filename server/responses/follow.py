"""Following a cached response: one loop over its event log replays old events and waits for new ones, on any replica.

It yields the bytes of frames; the API sends them to a client as server-sent events.
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
"""Small batches are gathered into chunks of about this size, which a transport takes before it asks to wait."""
EPOCH = 1
"""The only epoch of a response created with `stream`: it is not run again once a provider's event was logged."""


class Cut(Exception):
    """The follower ends before the terminal event, because the process drains or the response is gone."""


@dataclass
class Follower:
    """Follows one log for one reader, from behind the event `last`."""

    tails: Tails
    hub: Hub
    response_id: str
    last: int = -1
    obfuscation: bool = True
    _gave: bool = False

    async def follow(self, *, tick_s: float) -> AsyncGenerator[bytes, None]:
        """Yield the frames behind `last`, in chunks, up to and including the terminal one.

        The first chunk is empty and comes at once; it tells that the response exists. Later ones may be empty too: at
        least one comes every `tick_s`.

        Raises:
            ResponseNotFound: before the first chunk
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
        """Whether the terminal event was yielded."""
        if not reading.record.terminal:
            return False
        if self._gave and self.last > reading.record.cursor.last:
            raise Cut  # a failover lost events that this reader has, and the response ended with others
        return self.last >= reading.record.cursor.last

    def _chunks(self, batches: tuple[Batch, ...]) -> list[bytes]:
        """Join small batches: each chunk becomes a packet, and sending it is a third of what a reader costs."""
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
