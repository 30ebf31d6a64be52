"""The context: everything that request handlers share, stored in the application under one typed key."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from server.admission import Admission
from server.chain import Chain
from server.config import Config
from server.feed import Feed
from server.hub import Hub
from server.jobs.counts import JobCounts
from server.jobs.worker import Worker
from server.keyring import ClientKey, Keyring, Principal
from server.metrics import Counting, Tally
from server.outbox.sending import Sender
from server.responses.submit import Submitter
from server.responses.tails import Tails
from server.responses.view import Views
from server.sealing import Sealer
from server.upstream.affinity import Affinity
from server.upstream.client import Upstream
from server.upstream.deployments import Deployments
from server.upstream.poll import Pollers
from server.upstream.ways import Ways
from server.usage import Meter
from storage import Store


@dataclass
class Context:
    config: Config
    deployments: Deployments
    ways: Ways
    affinity: Affinity
    chain: Chain
    keyring: Keyring
    store: Store
    hub: Hub
    feed: Feed
    views: Views
    tails: Tails
    submitter: Submitter
    worker: Worker
    upstream: Upstream
    pollers: Pollers
    sealer: Sealer
    sender: Sender
    meter: Meter
    metrics: Counting
    job_counts: JobCounts
    id_secrets: list[bytes] = field(repr=False)
    """New ids are signed with the first secret; an id is valid if any of them verifies it."""
    admission: Admission = field(default_factory=Admission)
    streams: Tally = field(default_factory=Tally)
    """The streams to clients that are open now."""
    leaving: bool = False
    """Whether the process has been told to end: it serves on for a while, and says so to load balancers."""
    draining: bool = False
    """Whether it takes no new work any more, and answers waits with the current state."""
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a service of the process failed: the process must then exit."""


CONTEXT = web.AppKey("context", Context)
PRINCIPAL = web.RequestKey("principal", Principal)
REQUEST_ID = web.RequestKey("request_id", str)
BEGAN = web.RequestKey("began", float)
"""When the request came, by `time.perf_counter`."""
ERROR = web.RequestKey("error", str)
"""The class of the error that is answered, if one is: for the metrics."""


def context_of(request: web.Request) -> Context:
    return request.app[CONTEXT]


def client_key_of(request: web.Request) -> ClientKey | None:
    """The client's own key, for providers that are to get it."""
    return context_of(request).keyring.client_key(request.headers, principal_of(request))


def principal_of(request: web.Request) -> Principal:
    return request[PRINCIPAL]
