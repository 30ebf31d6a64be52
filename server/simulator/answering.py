"""How an answer leaves over HTTP, whatever the dialect: as a stream, whole, or cut in the middle."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import orjson
from aiohttp import web

from server.simulator.context import SIMULATOR
from server.simulator.directives import Directives
from server.simulator.errors import ApiError
from server.simulator.events import Event
from server.simulator.playback import Playback
from server.simulator.reply import FAILURE, Reply
from server.simulator.turn import Json

Write = Callable[[bytes], Awaitable[None]]

_SSE_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def answer(
    request: web.Request,
    reply: Reply,
    script: Callable[[Reply], Iterator[Event]],
    encode: Callable[[int, Event], bytes],
    whole: Callable[[Reply], Json],
) -> web.StreamResponse:
    """The answer of a dialect that keeps nothing: the events of its script, or one object in their stead."""
    playback = Playback(reply.schedule())
    if reply.streamed:
        pace = request.app[SIMULATOR].pace
        return await stream_created(
            request,
            reply.directives,
            lambda write, before: playback.play(script(reply), encode, write, pace, before=before),
        )
    count, error = 0, None
    for event in script(reply):
        count += 1
        error = event if event.type == "error" else error
    if await cut_unanswered(request, reply.directives, playback, count):
        return web.Response()
    await playback.until(count - 1)
    if error is None:
        return json_response(whole(reply))
    if reply.directives.fail:
        raise ApiError(500, FAILURE, code=reply.directives.error_code)
    # A provider that errs so late has already promised a 200.
    return json_response(error.body)


async def stream(request: web.Request, play: Callable[[Write], Awaitable[int]]) -> tuple[web.StreamResponse, int]:
    """What `play` writes, as server-sent events, and what it returns: how many there were."""
    response = web.StreamResponse(headers=_SSE_HEADERS)
    await response.prepare(request)
    with request.app[SIMULATOR].pace.playing():
        count = await play(response.write)
    return response, count


async def stream_created(
    request: web.Request, directives: Directives, play: Callable[[Write, int | None], Awaitable[int]]
) -> web.StreamResponse:
    """The stream of a create call: the only one that `cut_after` and `end_after` end."""
    ends = [n for n in (directives.cut_after, directives.end_after) if n is not None]
    before = min(ends, default=None)
    response, count = await stream(request, lambda write: play(write, before))
    if count == directives.cut_after:
        await _drop_connection(request)
    return response


async def cut_unanswered(request: web.Request, directives: Directives, playback: Playback, count: int) -> bool:
    """Whether the connection was dropped instead of an answer that `count` events would have made."""
    cut = directives.cut_after
    if cut is None or cut > count:
        return False
    await playback.until(cut - 1)
    await _drop_connection(request)
    return True


def json_response(body: Json) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


async def _drop_connection(request: web.Request) -> None:
    """Cut the connection without the end of the answer, but with all that was written before.

    Aborting discards what the transport still buffers; a client that does not read within a second loses it.
    """
    transport = request.transport
    if transport is None:
        return
    deadline = asyncio.get_running_loop().time() + 1
    await asyncio.sleep(0)
    # No event tells that the buffer is empty, so it is looked at.
    while transport.get_write_buffer_size() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    transport.abort()
