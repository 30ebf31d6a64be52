"""The application that a process serves, from the first connection on: while it starts, and once its store is there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from aiohttp import web

from server.api.access import ACCESS_LOG, AccessLog
from server.api.answered import Answers
from server.api.connection import LONGEST_LINE_BYTES, UNBOUNDED, HttpRunner
from server.api.context import LIVE, Live
from server.api.front import Front, Terms
from server.api.middleware import adapt, guard, stamp
from server.api.router import add_routes, add_worker_routes
from server.api.starting import starting_app
from server.config import Config
from server.metrics import Shared
from server.process.assembly import Process, Role, assembled, drain, kept_running, opened

BACKLOG = 4096
"""How many connections the kernel holds while the event loop is busy, so that many clients can reconnect at once."""
HANDLERS_END_WITHIN_S = 5.0
"""How long request handlers may take to end after the drain, which has already ended all waits and streams."""
QUIET_START_S = 2.0
"""How long clients of a process that starts are kept waiting. Then they are told so, until the store answers."""


def create_app(live: Live, role: Role = Role.ALL) -> web.Application:
    """The application: each request is served by the context that is the newest when it comes."""
    app = web.Application(middlewares=[guard], client_max_size=live.now.config.pollux.max_body_bytes)
    app[LIVE] = live
    app.on_response_prepare.append(stamp)
    app.on_response_prepare.append(Answers(live.now.metrics).count)
    app.on_response_prepare.append(adapt)
    (add_worker_routes if role is Role.WORKER else add_routes)(app)
    return app


@asynccontextmanager
async def running(
    config: Config,
    sockets: Sequence[socket.socket],
    role: Role = Role.ALL,
    *,
    most_clients: int = UNBOUNDED,
    shared: Shared | None = None,
) -> AsyncIterator[tuple[Process, Front]]:
    """Serve the whole application. Until the store is there, clients are told that the process is still starting.

    Raises:
        ConfigError, StoreError

    """
    live, terms = Live(), Terms.of(config, most_clients)
    async with AsyncExitStack() as stack:
        async with _starting(sockets, terms):
            store = await stack.enter_async_context(opened(config, live))
            process = await stack.enter_async_context(assembled(config, store, live, role, shared))
            # The starting app and the real one overlap for a moment, so that no connection is refused in between.
            front = await stack.enter_async_context(listening(process, sockets, terms, role))
        yield process, front


@asynccontextmanager
async def _starting(sockets: Sequence[socket.socket], terms: Terms) -> AsyncIterator[None]:
    """Answer for a process whose start takes longer than `QUIET_START_S`.

    A restart is mostly faster. Its clients wait in the backlog then, instead of being refused: a load balancer that has
    passed on a POST can't take a 503 for an invitation to try another replica.
    """

    async def answer() -> None:
        await asyncio.sleep(QUIET_START_S)
        async with _answering(starting_app(), sockets, terms, asyncio.Event()):
            await asyncio.Event().wait()

    answering = asyncio.create_task(answer(), name="starting")
    try:
        yield
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering


@asynccontextmanager
async def listening(
    process: Process, sockets: Sequence[socket.socket], terms: Terms, role: Role = Role.ALL
) -> AsyncIterator[Front]:
    """Serve the application on these sockets."""
    app, logged = create_app(process.live, role), process.live.now.config.pollux.access_log
    async with _answering(app, sockets, terms, process.phase.broken, access_log=logged) as front:
        try:
            yield front
        finally:
            # Ends all waits and streams; otherwise the server would wait for their handlers.
            await drain(process.live.now, patience_s=0.0)


@asynccontextmanager
async def _answering(
    app: web.Application,
    sockets: Sequence[socket.socket],
    terms: Terms,
    broken: asyncio.Event,
    *,
    access_log: bool = False,
) -> AsyncIterator[Front]:
    runner = HttpRunner(
        app,
        room=terms.room,
        encryption=terms.encryption,
        keepalive_timeout=terms.keepalive_s,
        # When a client hangs up, its handler is cancelled, so that no wait or stream goes on without a reader.
        handler_cancellation=True,
        # `api/body.py` decompresses bodies, and tells the client if it can't.
        auto_decompress=False,
        max_line_size=LONGEST_LINE_BYTES,
        access_log=ACCESS_LOG if access_log else None,
        access_log_class=AccessLog,
        shutdown_timeout=HANDLERS_END_WITHIN_S,
    )
    front = Front(runner, sockets, terms)
    await runner.setup()
    try:
        for held in sockets:
            # A copy, because the server closes the socket that it is given.
            await web.SockSite(runner, held.dup(), backlog=BACKLOG).start()
        async with kept_running("watch over clients", front.watch(), broken):
            yield front
    finally:
        await runner.cleanup()
