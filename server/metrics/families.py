"""The table of all metrics: names, labels and meanings. `deploy/README.md` has the same one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

QUICK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
REQUEST_BOUNDS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0, 1800.0, 3600.0),
)
"""From a read that is answered from memory to a proxied request that a model answers after an hour."""
LONG_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
STORE_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0)
SIZES_BYTES = tuple(float(4**power) for power in range(4, 13))
ATTEMPTS = (1.0, 2.0, 3.0, 5.0, 10.0)


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Family:
    """One metric, with a time series for each set of its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, told: str, *labels: str) -> Family:
    return Family(f"pollux_{name}", Kind.COUNTER, told, labels)


def _gauge(name: str, told: str, *labels: str) -> Family:
    return Family(f"pollux_{name}", Kind.GAUGE, told, labels)


def _histogram(name: str, told: str, buckets: tuple[float, ...], *labels: str) -> Family:
    return Family(f"pollux_{name}", Kind.HISTOGRAM, told, labels, buckets)


_DEPLOYMENT = ("model", "deployment")

REQUESTS = _counter("http_requests_total", "Answers to clients that have begun.", "method", "route", "status")
REQUEST_S = _histogram(
    "http_request_duration_seconds",
    "From a request until its answer begins; waits included, the rest of a stream not.",
    REQUEST_BOUNDS_S,
    *("method", "route"),
)
ERRORS = _counter(
    "http_errors_total",
    "Errors that clients were answered. error: Unavailable (the store is away, or this process is full or draining), "
    "Internal (a defect), UpstreamRefusal (a provider's own error, passed on), UpstreamUnavailable, UpstreamTimeout, "
    "RateLimited, Unauthorized, ResponseNotFound, and what else server/errors.py has.",
    *("route", "error"),
)

CREATED = _counter("responses_created_total", "Cached responses that were created.", "model")
CREATE_S = _histogram(
    "response_create_duration_seconds",
    "From a request for a cached response until that is stored, so that no client loses it any more.",
    QUICK_S,
)
ENDED = _counter(
    "responses_ended_total", "Cached responses that have ended, those deleted before not.", "model", "status"
)
QUEUED = _gauge("jobs_queued", "Jobs that wait for a worker, of all replicas. From the store, up to 5 s old.")
OVERDUE_S = _gauge(
    "jobs_overdue_seconds",
    "How long ago the first of the queued jobs ought to have begun, of all replicas; 0 if none is late. From the "
    "store, up to 5 s old.",
)
LEASED = _gauge("jobs_leased", "Jobs that a worker has, of all replicas. From the store, up to 5 s old.")
WAIT_S = _histogram("job_wait_seconds", "From the creation of a job until it was first leased.", LONG_S, "model")
RECLAIMED = _counter(
    "jobs_reclaimed_total", "Jobs taken over because the lease of another worker had run out.", "model"
)
RUNS = _gauge("runs_active", "Runs under way.")
BEGUN = _counter("runs_started_total", "Runs that have begun.", "model")
OUTCOMES = _counter(
    "runs_ended_total",
    "Runs that are over. outcome: ended (so is the response), stopped (cancelled, deleted, or its lease was lost), "
    "released (in a drain), unservable, store_gone, broke (a defect).",
    *("model", "outcome"),
)
RUN_S = _histogram("run_duration_seconds", "How long runs took whose response has ended.", LONG_S, "model")
ATTEMPT = _histogram("job_attempts", "How many attempts jobs took to their end.", ATTEMPTS)

EVENTS = _counter("events_written_total", "Events that runs have stored.")
FLUSH_BYTES = _histogram("flush_size_bytes", "Events that one group commit stored together.", SIZES_BYTES)
FLUSH_S = _histogram("flush_duration_seconds", "How long the store took for one group commit.", STORE_S)

CALLS = _counter(
    "upstream_requests_total",
    "Calls to deployments that are over. operation: create, read, cancel, delete, compact, input_tokens, other. "
    "outcome: ok, refused (4xx), limited (429), failed (5xx), timeout, unreachable, broken (within the answer), "
    "abandoned (by us or our client).",
    *(*_DEPLOYMENT, "operation", "outcome"),
)
CALL_S = _histogram(
    "upstream_request_duration_seconds",
    "From a call until the end of its answer, of a stream too.",
    LONG_S,
    *(*_DEPLOYMENT, "operation"),
)
FIRST_S = _histogram(
    "upstream_first_event_seconds", "From a call until the first event of a stream.", LONG_S, *_DEPLOYMENT
)
IN_FLIGHT = _gauge("upstream_requests_active", "Creating calls under way.", *_DEPLOYMENT)
COOLING = _gauge("deployment_cooling_down", "How many processes leave this deployment alone for now.", *_DEPLOYMENT)
COOLED = _counter("deployment_cooldowns_total", "How often a deployment began to cool down.", *_DEPLOYMENT)

WAITERS = _gauge("waiters", "Requests that wait for a change. kind: cached, native.", "kind")
STREAMS = _gauge("streams_open", "Streams to clients. kind: cached, forwarded, events (status events).", "kind")

STORE_CALL_S = _histogram(
    "store_command_duration_seconds",
    "How long the store took for one call. command: the name of a script, or command for all without one.",
    STORE_S,
    "command",
)
STORE_ERRORS = _counter(
    "store_errors_total", "Calls that the store failed. kind: unavailable, full, misfit, other.", "command", "kind"
)
STORE_MEMORY = _gauge(
    "store_memory_bytes",
    "Memory that the store uses; of a cluster, the fullest primary. From the store, up to 5 s old.",
)
STORE_MEMORY_LIMIT = _gauge(
    "store_memory_limit_bytes",
    "maxmemory of that server: when it is reached, nothing new is taken. 0 if there is none. From the store, up to 5 s "
    "old.",
)
EXCHANGES = _gauge("store_connections_active", "Connections to the store that are in use; at most 32 for each process.")

DELIVERIES = _counter(
    "webhook_deliveries_total",
    "Tries to deliver a webhook. outcome: told, again (it failed, and is tried again), failed (for good), later (left "
    "to another process).",
    "outcome",
)
DELIVERY_S = _histogram("webhook_delivery_duration_seconds", "How long endpoints of webhooks took.", QUICK_S)
OWED = _gauge(
    "webhook_endpoints_owed",
    "Webhook endpoints that must still be told something, of all replicas. From the store, up to 5 s old.",
)
DELIVERY_OVERDUE_S = _gauge(
    "webhooks_overdue_seconds",
    "How long ago the first of the deliveries was due that no process has begun, of all replicas; 0 if none is late. "
    "From the store, up to 5 s old.",
)

TOKENS = _counter(
    "tokens_total",
    "Tokens that responses of every mode have used, cancelled ones not. kind: input, cached_input (a part of it), "
    "output, reasoning (a part of it).",
    *("model", "kind"),
)

BUILD = _gauge("build_info", "Always 1. What runs is in the labels.", "version", "python", "role")
READY = _gauge(
    "ready", "1 if the process that answers takes new work: its store answers, and it has not been told to end."
)
TASKS = _gauge("event_loop_tasks", "Tasks of the event loop: all that is under way, each client's request included.")
RELOADS = _counter(
    "config_reloads_total",
    "Reloads of the config. outcome: applied, refused (nothing has changed; the log says why).",
    "outcome",
)
RELOADED = _gauge("config_last_reload_successful", "Whether the config that was read last went into effect.")
RELOADED_AT = _gauge(
    "config_last_reload_success_timestamp_seconds",
    "When the config that is in effect was read, as Unix time.",
)

PROCESSES = _gauge("processes", "Processes that this scrape tells of.")
LAG_S = _histogram(
    "event_loop_lag_seconds",
    "How much too late a timer fired, looked at ten times a second. All else in that process was late too.",
    QUICK_S,
)

FAMILIES = tuple(value for value in list(globals().values()) if isinstance(value, Family))
FROM_STORE = (QUEUED, LEASED, OWED, OVERDUE_S, DELIVERY_OVERDUE_S, STORE_MEMORY, STORE_MEMORY_LIMIT)
"""Those that no process counts: they are read from the store for each scrape. In the order of `storage.Counts`."""
