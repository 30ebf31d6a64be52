"""Holding: waits that are longer than a load balancer lets a connection be silent.

After `max_wait_s` Pollux sends the headers, then white space until the object is there. JSON allows white space before
a value (RFC 8259, section 2), and the SDKs' parsers accept it. So a synchronous framework can run a job of ten minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from aiohttp import web

from server.api.answers import response_answer
from server.api.context import context_of
from server.api.outflow import Outflow, StreamAborted
from server.api.query import Wait
from server.errors import PolluxError
from server.protocol.lifecycle import UNFINISHED
from storage import StoreError

BLANK_EVERY_S = 15.0
"""Proxies cut idle connections at 30 or 60 s."""


class State(NamedTuple):
    """A response as it was when it was read."""

    body: bytes
    etag: str
    status: str

    @property
    def unfinished(self) -> bool:
        return self.status in UNFINISHED


Look = Callable[[float], Coroutine[Any, Any, State]]
"""Returns the state after so many seconds; earlier if the wait's condition is met or the process drains."""


async def answer_after(request: web.Request, wait: Wait, look: Look) -> web.StreamResponse:
    """Answer with the state after the granted wait. If that is longer than `max_wait_s`, the answer is held.

    Raises:
        PolluxError, StoreError: what `look` raises, as long as nothing was sent

    """
    silent_s, held_s = parts_of(request, wait)
    state = await look(silent_s)
    if held_s and state.unfinished and not context_of(request).phase.draining:
        return await hold(request, wait, _body(look(held_s)))
    return response_answer(request, state.body, etag=state.etag, status=state.status, wait=wait)


async def _body(look: Coroutine[Any, Any, State]) -> bytes:
    return (await look).body


def parts_of(request: web.Request, wait: Wait) -> tuple[float, float]:
    """How many seconds of the granted wait are silent, and how many more are held."""
    granted_s = wait.seconds or 0.0
    silent_s = min(granted_s, context_of(request).config.pollux.max_wait_s)
    return silent_s, granted_s - silent_s


async def hold(request: web.Request, wait: Wait, last_look: Coroutine[Any, Any, bytes]) -> web.StreamResponse:
    """Send the headers at once, white space as long as `last_look` takes, and then the JSON that it returns."""
    # No entity tag: the headers go out before the state is known.
    headers = {"Content-Type": "application/json", "Cache-Control": "private, no-cache", **wait.headers}
    out = Outflow(request, headers)
    looking = asyncio.create_task(last_look, name="held wait")
    try:
        await out.start()
        while not looking.done():
            await out.write(b" ")
            await asyncio.wait([looking], timeout=BLANK_EVERY_S)
        await out.write(looking.result())
        await out.end()
    except StreamAborted:
        pass  # the client is gone
    except (PolluxError, StoreError):
        # The response or the store is gone. Status 200 has been sent, so only a broken connection can tell the client.
        out.abort()
    finally:
        looking.cancel()
    return out.response
