"""The stream of a cached response: replay and follow are one loop over the event log, on any replica."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from aiohttp import web

from server.api.context import context_of
from server.api.outflow import StreamAborted
from server.api.sse import HEARTBEAT_S, SseStream
from server.errors import ResponseNotFound
from server.jobs.view import bytes_after, frames_after
from server.protocol.events import strip_obfuscation
from server.protocol.sse import DONE
from storage import Batch, Cursor, Reading, StoreError

WRITE_BYTES = 64 * 1024
"""So much is gathered for one write: as much as a transport takes before it asks to wait."""

EPOCH = 1
"""A response that was created with `stream` is never run again once a provider's event was logged."""


async def stream_record(
    request: web.Request, response_id: str, *, after: int, obfuscation: bool = True
) -> web.StreamResponse:
    """Send the events behind `after`, then follow until the terminal one.

    Raises:
        ResponseNotFound, StoreUnavailable: before the stream has begun

    """
    context = context_of(request)
    follower = _Follower(request, response_id, after, obfuscation=obfuscation)
    first = await follower.read()
    if first is None:
        raise ResponseNotFound(response_id)
    try:
        await follower.stream.start()
        # Following drains with the process: an unfinished stream is then aborted, so that the client resumes.
        states = context.hub.observe(response_id, follower.read, tick_s=HEARTBEAT_S)
        async with aclosing(states):
            async for reading in states:
                if reading is None:
                    break
                if await follower.send(reading):
                    await follower.finish()
                    return follower.stream.response
    except (StreamAborted, StoreError):
        pass  # below
    follower.stream.abort()
    return follower.stream.response


class _Follower:
    """One client on its way through one log."""

    def __init__(self, request: web.Request, response_id: str, after: int, *, obfuscation: bool) -> None:
        self._context = context_of(request)
        self._id = response_id
        self._last = after
        self._obfuscation = obfuscation
        self._sent = False
        self.stream = SseStream(request)

    async def read(self) -> Reading | None:
        return await self._context.tails.read_log(self._id, Cursor(EPOCH, max(self._last, -1)))

    async def send(self, reading: Reading | None) -> bool:
        """Send what was read and all that lies behind it; whether that was the end."""
        while reading is not None:
            await self._send_all(reading.batches)
            if reading.reaches_end:
                break
            reading = await self.read()
        await self.stream.heartbeat()
        if reading is None or not reading.record.terminal:
            return False
        if self._sent and self._last > reading.record.cursor.last:
            raise StreamAborted  # a failover lost what this client has, and it ended otherwise
        return self._last >= reading.record.cursor.last

    async def _send_all(self, batches: Sequence[Batch]) -> None:
        """Small ones together: each write is a packet, and a third of what a reader costs."""
        self._sent = self._sent or bool(batches)
        gathered, size = [], 0
        for batch in batches:
            gathered.append(self._bytes_of(batch))
            size += len(gathered[-1])
            self._last = batch.cursor.last
            if size > WRITE_BYTES:
                await self.stream.write(b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            await self.stream.write(b"".join(gathered))

    def _bytes_of(self, batch: Batch) -> bytes:
        if self._obfuscation:
            return bytes_after(batch, self._last)
        return b"".join(strip_obfuscation(frame) for frame in frames_after(batch, self._last))

    async def finish(self) -> None:
        if self._context.config.pollux.sse_done:
            await self.stream.write(DONE)
        await self.stream.end()
