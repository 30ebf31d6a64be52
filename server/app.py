"""The composition root: builds the running application from a config and a store, and takes it down in order."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from enum import StrEnum
from typing import Any

from aiohttp import web

from server.api.answered import Answers
from server.api.connection import UNBOUNDED, HttpRunner
from server.api.context import CONTEXT, Context
from server.api.cors import Cors
from server.api.front import Front
from server.api.metrics import keep_measuring
from server.api.middleware import guard, part, stamp
from server.api.routes import add_routes, add_worker_routes
from server.api.starting import starting_app
from server.chain import Chain
from server.config import Config
from server.feed import Feed
from server.hub import Hub
from server.jobs.committer import Committer
from server.jobs.counts import JobCounts
from server.jobs.produce import Producer
from server.jobs.receive import Receiver
from server.jobs.run import Runner
from server.jobs.worker import Worker
from server.keyring import Keyring
from server.metrics import Counting, Shared, keep_watching
from server.outbox.endpoints import Configured
from server.outbox.sending import Sender
from server.outbox.upstream_cancels import UpstreamCancels
from server.outbox.webhooks import Webhooks
from server.responses.submit import Submitter
from server.responses.tails import Tails
from server.responses.view import Views
from server.sealing import Sealer
from server.upstream.affinity import Affinity
from server.upstream.choice import strategy_named
from server.upstream.client import Timeouts, new_session
from server.upstream.deployments import Deployments
from server.upstream.health import Health
from server.upstream.measured import MeasuredUpstream
from server.upstream.poll import Pollers
from server.upstream.ways import Ways
from server.usage import Meter
from storage import Durability, Ledger, Retention, Store, open_store

log = logging.getLogger("pollux.app")

BACKLOG = 4096
"""How many connections the kernel holds while the event loop is busy, so that many clients can reconnect at once."""
LONGEST_LINE_BYTES = 64 * 1024
"""The longest request line. It has room for the 200 composite ids, some 260 bytes each, of one GET /responses?ids=…."""
HANDLERS_END_WITHIN_S = 5.0
"""How long request handlers may take to end after the drain, which has already ended all waits and streams."""
QUIET_START_S = 2.0
"""How long clients of a process that starts are kept waiting. Then they are told so, until the store answers."""


class Role(StrEnum):
    """What a process does. Answering clients and running jobs can be scaled separately."""

    ALL = "all"
    API = "api"
    """Answers clients, and runs no jobs."""
    WORKER = "worker"
    """Runs jobs, and answers health checks only."""


def create_app(context: Context, role: Role = Role.ALL) -> web.Application:
    """The application for an assembled context."""
    app = web.Application(middlewares=[guard], client_max_size=context.config.pollux.max_body_bytes)
    app[CONTEXT] = context
    app.on_response_prepare.append(stamp)
    app.on_response_prepare.append(Answers(context.metrics).count)
    app.on_response_prepare.append(part)
    Cors(context.config.pollux.cors_origins).allow(app)
    (add_worker_routes if role is Role.WORKER else add_routes)(app)
    return app


def opened(config: Config) -> AbstractAsyncContextManager[Store]:
    """The store that a config names."""
    ours = config.pollux
    return open_store(
        config.store_url(),
        ours.shards,
        Durability(ours.store_sync),
        packed=ours.store_compression,
        retention=Retention(ours.feed_max_events, ours.feed_retention_s),
        hooks=Configured.in_config(config).telling,
        ledger=Ledger(ours.usage_retention_s, Deployments(config).label),
    )


@asynccontextmanager
async def assembled(
    config: Config, store: Store, role: Role = Role.ALL, shared: Shared | None = None
) -> AsyncIterator[Context]:
    """Start everything that runs in one process, and end it in the reverse order.

    If a service breaks, `Context.broken` is set, so that the process ends instead of going on without that service.
    """
    ours = config.pollux
    deployments = Deployments(config)
    metrics = Counting(
        model_of=deployments.label,
        deployments={made.id: made.model_name for made in deployments.all},
        role=role,
        shared=shared,
    )
    store.observe(metrics)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(new_session())
        router = config.router_settings
        health = Health(
            allowed_fails=config.allowed_fails,
            cooldown_s=None if router.disable_cooldowns else router.cooldown_time,
            least_pause_s=router.retry_after,
            strategy=strategy_named(router.routing_strategy),
            metrics=metrics,
        )
        timeouts = Timeouts(ours.connect_timeout_s, ours.first_byte_timeout_s, ours.stream_timeout_s)
        upstream = MeasuredUpstream(session, health, timeouts, metrics)
        stack.push_async_callback(upstream.grants.close)
        committer = Committer(store, lease_s=ours.lease_s, store_grace_s=ours.store_grace_s, metrics=metrics)
        id_secrets = _id_secrets(config, store)
        sealer = Sealer(id_secrets)
        # Two, so that clients who test endpoints can't take the connections that webhooks need.
        sender, tester = [await stack.enter_async_context(Sender(private=ours.webhook_allow_private)) for _ in range(2)]
        affinity = Affinity(deployments, id_secrets)
        chain = Chain(store, deployments, ours.id_prefix)
        keyring = Keyring(config, store.id_secret)
        ways = Ways(config, deployments, keyring)
        receiver = Receiver(store, upstream, config.num_retries)
        producer = Producer(upstream, ways, deployments, affinity, chain, receiver, config.num_retries)
        runner = Runner(store, producer, committer, ours.max_run_s, sealer, metrics)
        worker = Worker(
            store,
            runner.run,
            concurrency=0 if role is Role.API else ours.worker_concurrency,
            lease_s=ours.lease_s,
            max_attempts=ours.max_attempts,
            max_age_s=ours.max_age_s,
            metrics=metrics,
        )
        hub = Hub(store, wake=worker.wake, revoked=worker.revoked)
        submitter = Submitter(store, ours.id_prefix, config.ttl_s, ours.max_run_s, ours.max_queued, metrics)
        context = Context(
            config=config,
            deployments=deployments,
            affinity=affinity,
            chain=chain,
            keyring=keyring,
            ways=ways,
            store=store,
            hub=hub,
            feed=Feed(store, hub),
            views=Views(store),
            tails=Tails(store),
            submitter=submitter,
            worker=worker,
            upstream=upstream,
            pollers=Pollers(),
            sealer=sealer,
            sender=tester,
            meter=Meter(store, metrics),
            metrics=metrics,
            job_counts=JobCounts(store),
            id_secrets=id_secrets,
        )
        for name, service in (
            ("listener", hub.listen()),
            ("sweep", hub.sweep()),
            ("committer", committer.run()),
            ("renewals", worker.renew()),
            ("doubts", submitter.settle_doubts()),
            ("meter", context.meter.run()),
            ("metrics", keep_measuring(context)),
            ("lag", keep_watching(metrics)),
        ):
            await stack.enter_async_context(_running(name, service, context.broken))
        if role is not Role.API:
            cancels = UpstreamCancels(store, upstream, deployments)
            await stack.enter_async_context(_running("upstream cancels", cancels.run(), context.broken))
            webhooks = Webhooks(store, hub, sender, Configured.in_config(config), sealer, metrics)
            await stack.enter_async_context(_running("webhooks", webhooks.run(), context.broken))
        async with _running("worker", worker.run(), context.broken, wait=True):
            try:
                yield context
            finally:
                await drain(context, patience_s=0.0)


async def drain(context: Context, *, patience_s: float, hurry: asyncio.Event | None = None) -> None:
    """Take no more jobs and let runs end; then hand over the rest, refuse new work, answer all waits, end all streams.

    Runs get `patience_s` to end, or until `hurry` is set. Waits and streams that are open are served until then.
    Calling it again is harmless.
    """
    await context.worker.drain(patience_s, hurry)
    context.draining = True
    context.hub.drain()
    await context.pollers.drain()
    context.hub.close()


@asynccontextmanager
async def _running(
    name: str, service: Coroutine[Any, Any, None], broken: asyncio.Event, *, wait: bool = False
) -> AsyncIterator[None]:
    """Run a service of the process for the length of a block. With `wait`, it has to end by itself."""

    def note_end(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the %s broke, shutting down", name, exc_info=error)
            broken.set()

    task = asyncio.create_task(service, name=name)
    task.add_done_callback(note_end)
    try:
        yield
    finally:
        if not wait:
            task.cancel()
        await asyncio.wait([task])


def _id_secrets(config: Config, store: Store) -> list[bytes]:
    # The stored secret stays in the list, so that ids which it signed stay valid once other secrets are configured.
    return [*(secret.get_secret_value().encode() for secret in config.pollux.id_secrets), store.id_secret]


@asynccontextmanager
async def running(
    config: Config,
    sockets: Sequence[socket.socket],
    role: Role = Role.ALL,
    *,
    most_clients: int = UNBOUNDED,
    shared: Shared | None = None,
) -> AsyncIterator[tuple[Context, Front]]:
    """Serve the whole application. Until the store is there, clients are told that the process is still starting."""
    async with AsyncExitStack() as stack:
        async with _starting(sockets, most_clients):
            store = await stack.enter_async_context(opened(config))
            context = await stack.enter_async_context(assembled(config, store, role, shared))
            # The starting app and the real one overlap for a moment, so that no connection is refused in between.
            front = await stack.enter_async_context(listening(context, sockets, role, most_clients=most_clients))
        yield context, front


@asynccontextmanager
async def _starting(sockets: Sequence[socket.socket], most_clients: int) -> AsyncIterator[None]:
    """Answer for a process whose start takes longer than `QUIET_START_S`.

    A restart is mostly faster. Its clients wait in the backlog then, instead of being refused: a load balancer that has
    passed on a POST can't take a 503 for an invitation to try another replica.
    """

    async def answer() -> None:
        await asyncio.sleep(QUIET_START_S)
        async with _answering(starting_app(), sockets, most_clients):
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
    context: Context, sockets: Sequence[socket.socket], role: Role = Role.ALL, *, most_clients: int = UNBOUNDED
) -> AsyncIterator[Front]:
    """Serve the application on these sockets."""
    async with _answering(create_app(context, role), sockets, most_clients) as front:
        try:
            yield front
        finally:
            # Ends all waits and streams; otherwise the server would wait for their handlers.
            await drain(context, patience_s=0.0)


@asynccontextmanager
async def _answering(app: web.Application, sockets: Sequence[socket.socket], most_clients: int) -> AsyncIterator[Front]:
    runner = HttpRunner(
        app,
        most_clients=most_clients,
        # When a client hangs up, its handler is cancelled, so that no wait or stream goes on without a reader.
        handler_cancellation=True,
        # `api/body.py` decompresses bodies, and tells the client if it can't.
        auto_decompress=False,
        max_line_size=LONGEST_LINE_BYTES,
        access_log=None,
        shutdown_timeout=HANDLERS_END_WITHIN_S,
    )
    await runner.setup()
    try:
        for held in sockets:
            # A copy, because the server closes the socket that it is given.
            await web.SockSite(runner, held.dup(), backlog=BACKLOG).start()
        yield Front(runner, sockets)
    finally:
        await runner.cleanup()
