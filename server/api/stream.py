"""The stream of a cached response, as server-sent events."""

from __future__ import annotations

from contextlib import aclosing

from aiohttp import web

from server.api.context import context_of
from server.api.outflow import StreamAborted
from server.api.sse import HEARTBEAT_S, SseStream
from server.protocol.sse import DONE
from server.responses.follow import Cut, Follower
from storage import StoreError


async def stream_record(
    request: web.Request, response_id: str, *, after: int, obfuscation: bool = True
) -> web.StreamResponse:
    """Send the events behind `after`, then follow until the terminal one.

    Raises:
        ResponseNotFound, StoreUnavailable: before the stream has begun

    """
    context = context_of(request)
    follower = Follower(context.tails, context.hub, response_id, after, obfuscation)
    stream = SseStream(request)
    async with aclosing(follower.follow(tick_s=HEARTBEAT_S)) as chunks:
        await anext(chunks)
        try:
            await stream.start()
            with context.streams.one("cached"):
                async for chunk in chunks:
                    await (stream.write(chunk) if chunk else stream.heartbeat())
            if context.config.pollux.sse_done:
                await stream.write(DONE)
            await stream.end()
        except (StreamAborted, Cut, StoreError):
            # Before its terminal event a stream must not end cleanly. The client resumes.
            stream.abort()
    return stream.response
