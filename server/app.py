"""The composition root: builds the running application from a config and a store, and takes it down in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from enum import StrEnum
from typing import Any

from aiohttp import web

from server.api.answered import Answers
from server.api.connection import UNBOUNDED, HttpRunner
from server.api.context import CONTEXT, Context
from server.api.cors import Cors
from server.api.metrics import keep_measuring
from server.api.middleware import guard, stamp
from server.api.routes import add_routes, add_worker_routes
from server.api.starting import starting_app
from server.chain import Chain
from server.config import Config
from server.feed import Feed
from server.files import OpenFiles, raise_limit
from server.hub import Hub
from server.jobs.committer import Committer
from server.jobs.counts import JobCounts
from server.jobs.produce import Producer
from server.jobs.receive import Receiver
from server.jobs.run import Runner
from server.jobs.worker import Worker
from server.keyring import Keyring, check_exposure
from server.metrics import Counting, Shared
from server.outbox.endpoints import Configured
from server.outbox.sending import Sender
from server.outbox.upstream_cancels import UpstreamCancels
from server.outbox.webhooks import Webhooks
from server.responses.submit import Submitter
from server.responses.tails import Tails
from server.responses.view import Views
from server.sealing import Sealer
from server.sockets import bound
from server.supervise import Link, say_that_nothing_is_reloaded
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
COLLECT_AFTER = 50_000
"""The garbage collector runs after so many new objects; Python's default is 700."""
HANDLERS_END_WITHIN_S = 5.0
"""How long request handlers may take to end after the drain, which has already ended all waits and streams."""


class ServiceBroke(Exception):
    """A service of the process broke because of a bug in Pollux. The log has the stack; only a new process helps."""


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
        model_of=deployments.label, deployments={made.id: made.model_name for made in deployments.all}, shared=shared
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
        keyring = Keyring(config, config.master_key(), store.id_secret)
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
    """Refuse new work, answer all waits, let runs end; then hand over the rest and end all streams.

    Runs get `patience_s` to end, or until `hurry` is set. Calling it again is harmless.
    """
    context.draining = True
    context.hub.drain()
    await context.pollers.drain()
    await context.worker.drain(patience_s, hurry)
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


async def serve(
    config: Config, host: str, port: int, role: Role = Role.ALL, link: Link | None = None, shared: Shared | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the wait for runs.

    With a `link` this is one of several processes, and the parent decides when that wait ends. `shared` is where they
    share their metrics.

    Raises:
        ConfigError, StoreError, OSError (the address is taken)
        ServiceBroke: after a drain that did not wait for runs

    """
    if role is not Role.WORKER:
        check_exposure(config, host)
    files = OpenFiles(raise_limit(), jobs=0 if role is Role.API else config.pollux.worker_concurrency)
    files.check()
    end = _End(link)
    broke = False
    try:
        with bound(host, port, share=link is not None) as sockets:
            port = sockets[0].getsockname()[1]
            for held in sockets:
                held.listen(BACKLOG)  # from here on no client is refused, only kept waiting for a moment
            log.info("listening on http://%s:%d, with room for %s", host, port, files)
            async with running(config, sockets, role, most_clients=files.clients, shared=shared) as context:
                spare_the_collector()
                log.info("serving on http://%s:%d, store %s", host, port, context.store.name)
                await end.come(context.broken)
                log.info("draining")
                patience_s = 0.0 if context.broken.is_set() else config.pollux.drain_s
                await drain(context, patience_s=patience_s, hurry=end.hurry)
                broke = context.broken.is_set()
    except asyncio.CancelledError:
        if not end.asked.is_set():
            raise
    log.info("stopped")
    if broke:
        raise ServiceBroke


def spare_the_collector() -> None:
    """Make the garbage collector run less often, and skip all objects that exist already.

    Nothing on the hot path makes cycles, and each collection would walk over everything that a thousand jobs hold.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


class _End:
    """Tells when this process has to end, because of a signal or because its parent says so."""

    def __init__(self, link: Link | None) -> None:
        self.asked, self.hurry = asyncio.Event(), asyncio.Event()
        self._link = link
        self._starting = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, say_that_nothing_is_reloaded)
        if link is not None:
            link.obey(self._ask, self.hurry.set)

    async def come(self, broken: asyncio.Event) -> None:
        """Wait until the process has to end, or something is `broken`. To be called once the process serves."""
        self._starting = None
        if self._link is not None:
            self._link.tell_serving()
        reasons = [asyncio.create_task(event.wait(), name="end") for event in (self.asked, broken)]
        try:
            await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for reason in reasons:
                reason.cancel()

    def _on_signal(self) -> None:
        if not self.asked.is_set():
            self._ask()
        elif self._link is None:
            self.hurry.set()

    def _ask(self) -> None:
        if self._starting is not None and not self.asked.is_set():
            # While the process starts there is nothing to drain, and a start can take long if the store is away.
            self._starting.cancel()
        self.asked.set()


@asynccontextmanager
async def running(
    config: Config,
    sockets: Sequence[socket.socket],
    role: Role = Role.ALL,
    *,
    most_clients: int = UNBOUNDED,
    shared: Shared | None = None,
) -> AsyncIterator[Context]:
    """Serve the whole application. Until the store is there, clients are told that the process is still starting."""
    async with AsyncExitStack() as stack:
        async with _answering(starting_app(), sockets, most_clients):
            store = await stack.enter_async_context(opened(config))
            context = await stack.enter_async_context(assembled(config, store, role, shared))
            # The starting app and the real one overlap for a moment, so that no connection is refused in between.
            await stack.enter_async_context(listening(context, sockets, role, most_clients=most_clients))
        yield context


@asynccontextmanager
async def listening(
    context: Context, sockets: Sequence[socket.socket], role: Role = Role.ALL, *, most_clients: int = UNBOUNDED
) -> AsyncIterator[None]:
    """Serve the application on these sockets."""
    async with _answering(create_app(context, role), sockets, most_clients):
        try:
            yield
        finally:
            # Ends all waits and streams; otherwise the server would wait for their handlers.
            await drain(context, patience_s=0.0)


@asynccontextmanager
async def _answering(app: web.Application, sockets: Sequence[socket.socket], most_clients: int) -> AsyncIterator[None]:
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
        yield
    finally:
        await runner.cleanup()
