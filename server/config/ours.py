"""Our own section of the config, `pollux:`. Here an unknown key is an error, unlike in LiteLLM's sections."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from server.config.sections import Section
from server.keyhash import HashedKey, HashedKeys
from server.protocol.ids import is_prefix
from server.protocol.webhook_secrets import is_secret

GUEST = re.compile(r"key-[0-9a-f]{16}")
"""The owner's name of a key that is not in the config."""


class Ours(Section):
    """A mapping in it."""

    model_config = ConfigDict(extra="forbid")


class Key(Ours):
    """A key of the section `pollux`."""

    name: str = Field(min_length=1, description="The owner; several keys may share it, that is how keys rotate.")
    key: HashedKey = Field(description="The secret that clients send.")
    models: list[str] | None = Field(None, description="The models it may use; all if left out.")
    max_in_flight: int | None = Field(
        None, ge=1, description="How many of its owner's cached responses may be unfinished at once."
    )
    requests_per_minute: int | None = Field(
        None, ge=1, le=100_000, description="How many creates, of every mode, its owner may make within any minute."
    )


EndEvent = Literal["response.completed", "response.failed", "response.incomplete", "response.cancelled"]


def _webhook_secret(value: SecretStr) -> SecretStr:
    if not is_secret(value.get_secret_value()):
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return value


class Webhook(Ours):
    """An endpoint that is told of the ends of responses."""

    url: str = Field(min_length=1, description="Where events are sent.")
    secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] = Field(
        description="Signs them: `whsec_` and the base64 of 24 to 64 random bytes."
    )
    events: list[EndEvent] = Field(
        list(get_args(EndEvent)), description="Of which ends it is told; of all if left out."
    )
    keys: list[str] | None = Field(
        None, description="Names of the keys whose responses it is told of; all if left out."
    )


def _hashable_prefix(value: str) -> str:
    if not is_prefix(value):
        raise ValueError("must consist of at most 128 letters, digits, - and _, and can't be resp_")
    return value


class ModelPrice(Ours):
    """What a million tokens of a model cost, in whatever currency."""

    input: float = Field(ge=0, description="A million tokens of the input.")
    cached_input: float | None = Field(
        None, ge=0, description="A million cached tokens of the input; as much as others if left out."
    )
    output: float = Field(ge=0, description="A million tokens of the output, reasoning included.")


class Tls(Ours):
    """How connections of clients are encrypted."""

    cert_file: str | None = Field(
        None, description="The certificate, with its chain behind it, in PEM format; without one there is no TLS."
    )
    key_file: str | None = Field(None, description="Its key; left out if it stands in cert_file.")
    key_password: SecretStr | None = Field(None, description="The password of the key, if it has one.")
    client_ca_file: str | None = Field(
        None, description="Authorities of which clients must show a certificate; left out, they need none."
    )


def _network(value: str) -> str:
    ip_network(value)  # a ValueError says what is wrong
    return value


class Pollux(Ours):
    """The section `pollux`."""

    store: str | None = Field(
        None,
        description="embedded://[directory], redis://…, rediss://…, unix://…, sentinel://… or cluster://…; "
        "POLLUX_STORE overrules it.",
    )
    keys: list[Key] = Field([], description="Clients' keys: name, key, models.")
    id_secrets: list[SecretStr] = Field(
        [],
        description="Sign owner tags of composite ids: the first signs, all verify. Else made and stored once.",
    )
    id_prefix: Annotated[str, AfterValidator(_hashable_prefix)] = Field(
        "litellm_poll_", description="What ids of cached responses begin with."
    )
    composite_ids: Literal["published", "opaque"] = Field(
        "published",
        description="The form of new composite ids: LiteLLM's, or one that LiteLLM as a client leaves alone.",
    )
    accept_any_key: bool = Field(
        False,
        description="Serve keys that are not listed here, by deployments with forward_client_key: their providers "
        "decide who may.",
    )
    accept_untagged_ids: bool = Field(False, description="Serve LiteLLM's old composite ids to every key.")
    allow_unauthenticated: bool = Field(False, description="Start without any key on an address beyond loopback.")
    cors_origins: list[str] = Field(
        [], description="Origins whose pages may call from a browser, such as https://app.example; `*` for all."
    )
    webhooks: list[Webhook] = Field([], description="Endpoints that are told of the ends of responses: url, secret.")
    webhook_per_request: bool = Field(
        False, description="Whether a background create may name an endpoint of its own: `webhook: {url, secret}`."
    )
    webhook_allow_private: bool = Field(
        False, description="Whether webhooks may go to addresses that are not public, and by http."
    )
    max_wait_s: float = Field(55, ge=0, description="The longest wait; load balancers cut at 60 s.")
    max_hold_s: float = Field(
        900, ge=0, description="The longest wait at all: beyond max_wait_s white space keeps the connection alive."
    )
    max_run_s: float = Field(3600, gt=0, description="A run longer than this fails with `timeout`.")
    max_age_s: float = Field(86400, gt=0, description="A job older than this fails instead of running.")
    stream_timeout_s: float = Field(600, gt=0, description="Silence of an upstream after which it is given up.")
    connect_timeout_s: float = Field(10, gt=0, description="Seconds to connect to an upstream.")
    first_byte_timeout_s: float = Field(120, gt=0, description="Seconds until a streamed answer of an upstream begins.")
    max_body_bytes: int = Field(50 * 1024 * 1024, gt=0, description="The largest request body.")
    tls: Tls = Tls()
    header_timeout_s: float = Field(
        30, gt=0, description="How long the headers of a request may take, or the handshake of TLS."
    )
    body_timeout_s: float = Field(
        30, gt=0, description="A body must bring 500 bytes for each second of any such time, or is refused."
    )
    keepalive_timeout_s: float = Field(
        630, gt=0, description="How long a connection may wait for another request; set it above that of any balancer."
    )
    max_connections: int | None = Field(
        None, ge=1, description="How many connections of clients a process has; as open files allow if left out."
    )
    max_connections_per_address: int | None = Field(
        None, ge=1, description="How many of them one address may have in a process; any number if left out."
    )
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = Field(
        [], description="Networks of proxies, such as 10.0.0.0/8, that name the address of a client in X-Forwarded-For."
    )
    max_open_per_key: int | None = Field(
        None, ge=1, description="How many requests of one owner may be open at once in a process, waits included."
    )
    lease_s: float = Field(15, ge=1, description="After this long without a sign a worker is taken for dead.")
    max_attempts: int = Field(3, ge=1, description="How often a job is begun before it fails with `worker_lost`.")
    worker_concurrency: int = Field(1000, ge=0, description="Jobs at once per process; 0 runs none here.")
    max_queued: int | None = Field(None, ge=1, description="How many cached responses may wait for a worker.")
    drain_grace_s: float = Field(5, ge=0, description="How long after SIGTERM /readyz is 503 but all is still served.")
    drain_s: float = Field(30, ge=0, description="How long running jobs may go on after that.")
    store_grace_s: float = Field(30, ge=0, description="How long running jobs go on without the store.")
    store_sync: Literal["none", "replica", "fsync"] = Field(
        "none", description="Where creates and ends must have arrived before they are acknowledged."
    )
    store_compression: bool = Field(True, description="Keep events compressed: a third of the bytes, or a tenth.")
    feed_retention_s: float = Field(86400, ge=60, description="How long status events can be resumed from.")
    feed_max_events: int = Field(
        200_000, ge=1000, description="How many status events are kept at most, some 120 bytes each and their metadata."
    )
    shards: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Hash slots used: 1, on Cluster 16, unless the store was made with others. Fixed from then on.",
    )
    prices: dict[str, ModelPrice] = Field(
        {}, description="What tokens cost, by model_name; overrules the costs that LiteLLM's keys give."
    )
    usage_retention_s: float = Field(400 * 86400, ge=86400, description="How long usage is kept.")
    sse_done: bool = Field(False, description="End streams of cached responses with data: [DONE].")
    openai_poll_after_ms: int = Field(
        1000, ge=0, description="What unfinished answers suggest in openai-poll-after-ms."
    )
    metrics_key: HashedKeys = Field(
        [], description="A key, or several, for GET /metrics and nothing else; the master key works there too."
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look.")
    access_log: bool = Field(False, description="Log one line for each answer to a client.")
    tracing: bool | None = Field(
        None,
        description="Whether requests are traced; if left out, OpenTelemetry's variables or LiteLLM's otel say so.",
    )
