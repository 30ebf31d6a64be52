"""The context: everything that request handlers share. A reload makes another one, for the requests that come then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from server.admission import Admission
from server.api.cors import Cors
from server.api.shares import Shares
from server.chain import Chain
from server.config import Config
from server.feed import Feed
from server.hub import Hub
from server.jobs.counts import JobCounts
from server.jobs.run import Runner
from server.jobs.worker import Worker
from server.keyring import ClientKey, Keyring, Principal
from server.metrics import Counting, Tally
from server.outbox.endpoints import Configured
from server.outbox.sending import Sender
from server.protocol.lifecycle import Status
from server.responses.submit import Submitter
from server.responses.tails import Tails
from server.responses.view import Views
from server.sealing import Sealer
from server.tracing import Span, Tracing
from server.upstream.affinity import Affinity
from server.upstream.deployments import Deployments
from server.upstream.measured import MeasuredUpstream
from server.upstream.poll import Pollers
from server.upstream.ways import Ways
from server.usage import Meter
from storage import Lease, Outcome, Store


@dataclass
class Phase:
    """How near its end a process is."""

    leaving: bool = False
    """Whether the process has been told to end: it serves on for a while, and says so to load balancers."""
    draining: bool = False
    """Whether it takes no new work any more, and answers waits with the current state."""
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a service of the process failed: the process must then exit."""


@dataclass(frozen=True)
class Context:
    """What depends on one config, and what the process has for all of them."""

    config: Config
    deployments: Deployments
    ways: Ways
    affinity: Affinity
    chain: Chain
    keyring: Keyring
    configured: Configured
    cors: Cors
    submitter: Submitter
    runner: Runner
    sealer: Sealer
    id_secrets: list[bytes] = field(repr=False)
    """New ids are signed with the first secret; an id is valid if any of them verifies it."""

    store: Store
    hub: Hub
    feed: Feed
    views: Views
    tails: Tails
    worker: Worker
    upstream: MeasuredUpstream
    pollers: Pollers
    sender: Sender
    """For clients who test endpoints of webhooks."""
    meter: Meter
    metrics: Counting
    tracing: Tracing
    job_counts: JobCounts
    admission: Admission
    shares: Shares
    streams: Tally
    """The streams to clients that are open now."""
    phase: Phase


@dataclass
class Live:
    """The newest context. New work begins with it, and keeps it to its end: so it sees one config."""

    now: Context = field(init=False)

    def run(self, lease: Lease, on_lost: Callable[[Outcome], None]) -> Awaitable[Status]:
        """Run a job, see `Runner.run`."""
        return self.now.runner.run(lease, on_lost)

    def endpoints_for(self, owner: str, status: str) -> Sequence[str]:
        """The endpoints of webhooks in the config that such an end of one of this owner's responses concerns."""
        return self.now.configured.telling(owner, status)

    def label(self, model: str) -> str:
        """The name under which a model's usage is counted."""
        return self.now.deployments.label(model)


LIVE = web.AppKey("live", Live)
CONTEXT = web.RequestKey("context", Context)
PRINCIPAL = web.RequestKey("principal", Principal)
REQUEST_ID = web.RequestKey("request_id", str)
BEGAN = web.RequestKey("began", float)
"""When the request came, by `time.perf_counter`."""
ERROR = web.RequestKey("error", str)
"""The class of the error that is answered, if one is: for the metrics."""
STATUS = web.RequestKey("status", int)
"""The status of the answer, once it has begun."""
SPAN = web.RequestKey("span", Span)
"""The span of a request whose key was accepted."""


def context_of(request: web.Request) -> Context:
    """The context that was the newest when this request was first asked about."""
    context = request.get(CONTEXT)
    if context is None:
        context = request[CONTEXT] = request.app[LIVE].now
    return context


def client_key_of(request: web.Request) -> ClientKey | None:
    """The client's own key, for providers that are to get it."""
    return context_of(request).keyring.client_key(request.headers, principal_of(request))


def principal_of(request: web.Request) -> Principal:
    return request[PRINCIPAL]
