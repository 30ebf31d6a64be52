"""Passes a provider's stream on to a client, with ids rewritten and without keepalive events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import aiohttp
from aiohttp import web

from server.api.context import context_of
from server.api.keeper import Keeper
from server.api.outflow import StreamAborted
from server.api.sse import HEARTBEAT_S, SseStream
from server.errors import PolluxError, UpstreamRefusal
from server.protocol import jsontext
from server.protocol.events import MalformedEvent, is_transport, parse_event
from server.protocol.lifecycle import OPENING, TERMINAL_EVENTS
from server.protocol.reasons import Remedy
from server.protocol.sse import ServerEvent, frame_data
from server.upstream.answer import Answer
from server.upstream.refusals import failure_said, remedy_of
from server.upstream.rewrite import Rewriter

OPENING_PATIENCE_S = 1.0
"""How long the headers to the client are held back for the first event.

A provider that refuses with an `error` event sends it at once. Before the headers are out, another deployment can be
tried, or the refusal be answered with its status.
"""

MOST_ORDINARY = 256
"""How many event types are remembered per stream; about sixty exist."""

_DONE = b"[DONE]"
_FAILURES = ("error", "response.failed")
_LAST_EVENTS = frozenset(TERMINAL_EVENTS) | {"error"}


async def forward_stream(
    request: web.Request,
    answer: Answer,
    rewriter: Rewriter,
    *,
    headers: Mapping[str, str],
    creates: bool,
    may_be_empty: bool,
    may_go_on: Callable[[PolluxError], bool],
    keeper: Keeper | None = None,
) -> web.StreamResponse:
    """Pass all events on. End cleanly if the last one was a terminal event or an error; otherwise abort the connection.

    `creates`: the call creates a response. `may_be_empty`: a stream without any event is a normal answer. `may_go_on`:
    whether another model comes after an error. `keeper` stores the response before the client learns its end.

    Raises:
        UpstreamRefusal: the first event is a failure that another try, or model, may fix. Nothing was passed on.
        aiohttp.ClientError, OSError: the connection broke before the first event

    """
    source = _Source(answer, rewriter)
    stream = SseStream(request, headers)
    opening = await source.opening() if creates else []
    if (refusal := _failure_in(opening)) and (remedy_of(refusal) is not Remedy.NOTHING or may_go_on(refusal)):
        raise context_of(request).upstream.noted(rewriter.deployment, refusal)
    try:
        await stream.start()
        with context_of(request).streams.one("forwarded"):
            last = await _pass_on(opening, source, stream, keeper)
    except StreamAborted:
        return stream.response
    except (aiohttp.ClientError, OSError, ValueError, TypeError, PolluxError):
        stream.abort()
        return stream.response
    if creates and not source.begun and source.failure is not None:
        context_of(request).upstream.noted(rewriter.deployment, source.failure)
    if last in _LAST_EVENTS or (last is None and may_be_empty):
        await stream.end()
    else:
        stream.abort()
    return stream.response


class _Source:
    """The events of one answer, without those that only keep the connection alive."""

    def __init__(self, answer: Answer, rewriter: Rewriter) -> None:
        self.rewriter = rewriter
        self._answer = answer
        self._ordinary: set[str] = set()
        """Event types already seen that need no check, only passing on."""
        self.last: str | None = None
        """The type of the newest event."""
        self.begun = False
        """Whether an event came that is neither an opening lifecycle event nor a failure."""
        self.failure: UpstreamRefusal | None = None

    async def opening(self) -> list[ServerEvent]:
        """The first events other than keepalives; empty if none comes within `OPENING_PATIENCE_S`."""
        try:
            async with asyncio.timeout(OPENING_PATIENCE_S):
                while (events := await self._answer.events()) is not None:
                    if said := self._passed(events):
                        return said
        except aiohttp.ServerTimeoutError:
            raise
        except TimeoutError:
            pass  # the headers are now sent without waiting for an event
        return []

    async def next(self) -> list[ServerEvent] | None:
        """The events in the next bytes, possibly an empty list; None at the end.

        Raises:
            TimeoutError: no bytes came for `HEARTBEAT_S`

        """
        async with asyncio.timeout(HEARTBEAT_S):
            events = await self._answer.events()
        return None if events is None else self._passed(events)

    def _passed(self, events: list[ServerEvent]) -> list[ServerEvent]:
        return [event for event in events if self._says_something(event)]

    def _says_something(self, event: ServerEvent) -> bool:
        kind = event.name or ("" if event.data == _DONE else self.rewriter.type_of(event.data))
        if kind in self._ordinary:  # the fast path, since this runs for every event
            self.last = kind
            return True
        return self._is_passed_on(event, kind)

    def _is_passed_on(self, event: ServerEvent, kind: str) -> bool:
        if not kind:
            return True  # [DONE]
        if is_transport(kind):
            return False
        self.last = kind
        if kind in _FAILURES:
            self.failure = _failure_in([event])
        elif kind not in OPENING:
            self.begun = True
            if len(self._ordinary) < MOST_ORDINARY:
                self._ordinary.add(kind)
        return True


async def _pass_on(opening: list[ServerEvent], source: _Source, stream: SseStream, keeper: Keeper | None) -> str | None:
    """Pass all events on; returns the type of the last one."""
    events: list[ServerEvent] | None = opening
    while events is not None:
        if events:
            frames = [source.rewriter.event(event) for event in events]
            if keeper is not None and source.last in TERMINAL_EVENTS:
                await keeper.keep(jsontext.dumps(jsontext.loads(frame_data(frames[-1]))["response"]))
            await stream.write(b"".join(frames))
        else:
            await stream.heartbeat()  # the provider's keepalives are not passed on, so the client needs our own
        try:
            events = await source.next()
        except aiohttp.ServerTimeoutError:
            raise
        except TimeoutError:
            events = []
    return source.last


def _failure_in(events: Iterable[ServerEvent]) -> UpstreamRefusal | None:
    """The failure among these events, if only opening lifecycle events precede it."""
    for event in events:
        try:
            parsed = parse_event(event.name, event.data)
        except MalformedEvent:
            return None
        if (fields := parsed.failure) is not None:
            return failure_said(fields)
        if parsed.type not in OPENING:
            return None
    return None
