"""The assembly: all that runs in one process, started in order, and taken down in the reverse order.

There are two kinds of things. Those of the process exist once: the store, the connections, and the state of what is
under way. What depends on the config alone is made anew with each config, and gathered in a `Context`. New work takes
the newest context, and keeps it to its end: so a request or a run sees one config, also if another one comes meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from server.admission import Admission
from server.api.context import Context, Live, Phase
from server.api.cors import Cors
from server.api.metrics import keep_measuring
from server.api.presence import keep_reporting, process_name
from server.api.shares import Shares
from server.chain import Chain
from server.config import Config
from server.feed import Feed
from server.hub import Hub
from server.jobs.committer import Committer
from server.jobs.counts import JobCounts
from server.jobs.leaser import Leasing
from server.jobs.produce import Producer
from server.jobs.receive import Receiver
from server.jobs.run import Runner
from server.jobs.worker import Worker
from server.keyring import Keyring
from server.metrics import Counting, Shared, Tally, keep_watching
from server.outbox.endpoints import Configured
from server.outbox.sending import Sender
from server.outbox.upstream_cancels import UpstreamCancels
from server.outbox.webhooks import Webhooks
from server.reload.restart import carried_over
from server.responses.doubts import Doubts
from server.responses.submit import Submitter
from server.responses.tails import Tails
from server.responses.view import Views
from server.sealing import Sealer
from server.tracing import Tracing, current_span, tracing_by
from server.upstream.affinity import Affinity
from server.upstream.choice import strategy_named
from server.upstream.client import Timeouts, new_session
from server.upstream.deployments import Deployments
from server.upstream.grants import Grants
from server.upstream.health import Health, Rules
from server.upstream.measured import MeasuredUpstream
from server.upstream.poll import Pollers
from server.upstream.ways import Ways
from server.usage import Meter
from storage import Durability, Ledger, Retention, Store, open_store

log = logging.getLogger("pollux.app")


class Role(StrEnum):
    """What a process does. Answering clients and running jobs can be scaled separately."""

    ALL = "all"
    API = "api"
    """Answers clients, and runs no jobs."""
    WORKER = "worker"
    """Runs jobs, and answers health checks only."""


@dataclass(frozen=True)
class Process:
    """What a process has once, whatever its configs say."""

    live: Live
    store: Store
    hub: Hub
    feed: Feed
    views: Views
    tails: Tails
    worker: Worker
    committer: Committer
    upstream: MeasuredUpstream
    pollers: Pollers
    senders: tuple[Sender, Sender]
    """For webhooks, and for clients who test endpoints: they can't take the connections that webhooks need."""
    meter: Meter
    metrics: Counting
    tracing: Tracing
    job_counts: JobCounts
    doubts: Doubts
    admission: Admission
    open_requests: Counter[str]
    streams: Tally
    phase: Phase

    def context(self, config: Config) -> Context:
        """All that begins under this config. Changes nothing, and may be called in a thread.

        Raises:
            ConfigError

        """
        ours, store, upstream, metrics = config.pollux, self.store, self.upstream, self.metrics
        # The stored secret stays in the list: ids that it signed are valid once other secrets are configured.
        id_secrets = [*(secret.get_secret_value().encode() for secret in ours.id_secrets), store.id_secret]
        deployments, sealer = Deployments(config), Sealer(id_secrets)
        affinity = Affinity(deployments, id_secrets)
        chain = Chain(store, deployments, ours.id_prefix)
        keyring = Keyring(config, store.id_secret)
        ways = Ways(config, deployments, keyring)
        receiver = Receiver(store, upstream, config.num_retries)
        producer = Producer(upstream, ways, deployments, affinity, chain, receiver, config.num_retries)
        return Context(
            config=config,
            deployments=deployments,
            ways=ways,
            affinity=affinity,
            chain=chain,
            keyring=keyring,
            configured=Configured.in_config(config),
            cors=Cors(ours.cors_origins),
            submitter=Submitter(
                store,
                self.doubts,
                ours.id_prefix,
                config.ttl_s,
                ours.max_run_s,
                ours.max_queued,
                metrics,
                self.tracing,
            ),
            runner=Runner(store, producer, self.committer, ours.max_run_s, sealer, metrics),
            sealer=sealer,
            id_secrets=id_secrets,
            store=store,
            hub=self.hub,
            feed=self.feed,
            views=self.views,
            tails=self.tails,
            worker=self.worker,
            upstream=upstream,
            pollers=self.pollers,
            sender=self.senders[1],
            meter=self.meter,
            metrics=metrics,
            tracing=self.tracing,
            job_counts=self.job_counts,
            admission=self.admission,
            shares=Shares(ours, self.open_requests),
            streams=self.streams,
            phase=self.phase,
        )

    async def take(self, config: Config) -> list[str]:
        """Begin all new work with another config, except for settings that need a restart. Returns their paths.

        What is under way goes on with the config that it began with.

        Raises:
            ConfigError: nothing has changed

        """
        config, kept = carried_over(self.live.now.config, config)
        self.go_on_with(await asyncio.to_thread(self.context, config))
        return kept

    def go_on_with(self, context: Context) -> None:
        """Begin all new work with this context, and treat the state of the process by its config."""
        config, deployments = context.config, context.deployments
        ours, router = config.pollux, config.router_settings
        self.metrics.heed(deployments.label, {made.id: made.model_name for made in deployments.all})
        timeouts = Timeouts(ours.connect_timeout_s, ours.first_byte_timeout_s, ours.stream_timeout_s)
        self.upstream.heed(timeouts, deployments.all)
        self.upstream.health.heed(
            Rules(
                allowed_fails=config.allowed_fails,
                cooldown_s=None if router.disable_cooldowns else router.cooldown_time,
                least_pause_s=router.retry_after,
                strategy=strategy_named(router.routing_strategy),
            ),
            deployments.all,
        )
        for sender in self.senders:
            sender.private = ours.webhook_allow_private
        self.live.now = context


def opened(config: Config, live: Live) -> AbstractAsyncContextManager[Store]:
    """The store that a config names. It asks the newest context whom it owes events to, and how models are counted."""
    ours = config.pollux
    return open_store(
        config.store_url(),
        ours.shards,
        Durability(ours.store_sync),
        packed=ours.store_compression,
        retention=Retention(ours.feed_max_events, ours.feed_retention_s),
        hooks=live.endpoints_for,
        ledger=Ledger(ours.usage_retention_s, live.label),
    )


@asynccontextmanager
async def assembled(
    config: Config, store: Store, live: Live, role: Role = Role.ALL, shared: Shared | None = None
) -> AsyncIterator[Process]:
    """Start everything that runs in one process, with the first context of `live`.

    If a service breaks, `Phase.broken` is set, so that the process ends instead of going on without that service.
    """
    async with AsyncExitStack() as stack:
        process = await _process(config, store, live, role, shared, stack)
        process.go_on_with(process.context(config))
        for name, service in _services(process, role):
            await stack.enter_async_context(kept_running(name, service, process.phase.broken))
        async with kept_running("worker", process.worker.run(), process.phase.broken, wait=True):
            try:
                yield process
            finally:
                await drain(process.live.now, patience_s=0.0)


async def _process(
    config: Config, store: Store, live: Live, role: Role, shared: Shared | None, stack: AsyncExitStack
) -> Process:
    ours = config.pollux
    tracing = tracing_by(config)
    stack.push_async_callback(tracing.close)  # last of all: until then everything may have something to tell
    metrics = Counting(role=role, shared=shared, trace_of=(lambda: current_span().exemplar) if tracing.on else None)
    store.observe(metrics)
    session = await stack.enter_async_context(new_session())
    grants = Grants(session)
    stack.push_async_callback(grants.close)
    senders = [await stack.enter_async_context(Sender()) for _ in range(2)]
    worker = Worker(
        store,
        live.run,
        Leasing(ours.lease_s, ours.max_attempts, ours.max_age_s, process_name()),
        concurrency=0 if role is Role.API else ours.worker_concurrency,
        metrics=metrics,
        tracing=tracing,
    )
    hub = Hub(store, wake=worker.wake, revoked=worker.revoked)
    return Process(
        live=live,
        store=store,
        hub=hub,
        feed=Feed(store, hub),
        views=Views(store),
        tails=Tails(store),
        worker=worker,
        committer=Committer(store, lease_s=ours.lease_s, store_grace_s=ours.store_grace_s, metrics=metrics),
        upstream=MeasuredUpstream(session, Health(metrics=metrics), grants, metrics, tracing),
        pollers=Pollers(),
        senders=(senders[0], senders[1]),
        meter=Meter(store, metrics),
        metrics=metrics,
        tracing=tracing,
        job_counts=JobCounts(store),
        doubts=Doubts(store),
        admission=Admission(),
        open_requests=Counter(),
        streams=Tally(),
        phase=Phase(),
    )


def _services(process: Process, role: Role) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """What runs as long as the process, besides the worker. Each begins before the next one is made."""
    store, hub, metrics, live = process.store, process.hub, process.metrics, process.live
    yield "listener", hub.listen()
    yield "sweep", hub.sweep()
    yield "committer", process.committer.run()
    yield "renewals", process.worker.renew()
    yield "doubts", process.doubts.settle()
    yield "meter", process.meter.run()
    yield "metrics", keep_measuring(live)
    yield "presence", keep_reporting(live, role)
    yield "lag", keep_watching(metrics)
    if role is not Role.API:
        yield "upstream cancels", UpstreamCancels(store, process.upstream, lambda: live.now.deployments).run()
        webhooks = Webhooks(
            store,
            hub,
            process.senders[0],
            lambda: live.now.configured,
            lambda: live.now.sealer,
            metrics,
            process.tracing,
        )
        yield "webhooks", webhooks.run()


async def drain(context: Context, *, patience_s: float, hurry: asyncio.Event | None = None) -> None:
    """Take no more jobs and let runs end; then hand over the rest, refuse new work, answer all waits, end all streams.

    Runs get `patience_s` to end, or until `hurry` is set. Waits and streams that are open are served until then.
    Calling it again is harmless.
    """
    await context.worker.drain(patience_s, hurry)
    context.phase.draining = True
    context.hub.drain()
    await context.pollers.drain()
    context.hub.close()


@asynccontextmanager
async def kept_running(
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
