"""The configuration: an unchanged LiteLLM config file, and our own section `pollux:`. It is read once, at the start.

LiteLLM's other keys are accepted and listed in one warning; a mistake in ours is an error that names its dotted
path. `os.environ/NAME` may stand for any string.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)

from server.credentials import with_credential
from server.includes import Merged, read_merged
from server.protocol.fallback_lists import table_in, targets_in
from server.protocol.fallbacks import DEEPEST, EVERY, Fallbacks
from server.protocol.routing import BackgroundMode
from server.protocol.webhook_secrets import is_secret
from server.sections import (
    ConfigError,
    Credential,
    Foreign,
    GeneralSettings,
    LiteLLMSettings,
    ModelEntry,
    RouterSettings,
    Section,
    redis_url,
    setting,
)
from server.unused import keys_without_effect

ENVIRON = "os.environ/"
GUEST = re.compile(r"key-[0-9a-f]{16}")
"""The owner's name of a key that is not in the config."""


class _Ours(Section):
    """A section of Pollux's own: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


class Key(_Ours):
    """A key of the section `pollux`."""

    name: str = Field(min_length=1, description="The owner; several keys may share it, that is how keys rotate.")
    key: SecretStr = Field(min_length=1, description="The secret that clients send.")
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


class Webhook(_Ours):
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
    if not value or not all((c.isascii() and c.isalnum()) or c in "_-" for c in value) or value == "resp_":
        raise ValueError("must consist of letters, digits, - and _, and can't be resp_")
    return value


class ModelPrice(_Ours):
    """What a million tokens of a model cost, in whatever currency."""

    input: float = Field(ge=0, description="A million tokens of the input.")
    cached_input: float | None = Field(
        None, ge=0, description="A million cached tokens of the input; as much as others if left out."
    )
    output: float = Field(ge=0, description="A million tokens of the output, reasoning included.")


class Pollux(_Ours):
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
    metrics_key: SecretStr | None = Field(
        None, min_length=1, description="A key for GET /metrics and nothing else; the master key works there too."
    )
    log_format: Literal["console", "json"] = Field("console", description="How log lines look.")


class Config(Foreign):
    """The whole config file."""

    model_list: list[ModelEntry] = Field(default_factory=list)
    credential_list: list[Credential] = Field(default_factory=list)
    include: list[str] = Field(
        [], description="Further files; their lists are added to those here, their other sections replace them."
    )
    litellm_settings: LiteLLMSettings = LiteLLMSettings()
    router_settings: RouterSettings = RouterSettings()
    general_settings: GeneralSettings = GeneralSettings()
    pollux: Pollux = Pollux()
    _included: tuple[Path, ...] = PrivateAttr(())
    _surprises: tuple[str, ...] = PrivateAttr(())

    @property
    def included(self) -> tuple[Path, ...]:
        """The files that were read beside the first one."""
        return self._included

    @property
    def surprises(self) -> tuple[str, ...]:
        """What is probably not intended in how the files include each other."""
        return self._surprises

    def came_from(self, merged: Merged) -> None:
        self._included, self._surprises = tuple(merged.included), tuple(merged.surprises)

    @cached_property
    def background_mode(self) -> BackgroundMode:
        section = self.litellm_settings.responses.background_mode
        return BackgroundMode(section.polling_via_cache, tuple(section.native_background_mode or ()))

    @property
    def ttl_s(self) -> float:
        return self.litellm_settings.responses.background_mode.ttl

    @property
    def num_retries(self) -> int:
        for given in (self.router_settings.num_retries, self.litellm_settings.num_retries):
            if given is not None:
                return given
        return 2

    @cached_property
    def fallbacks(self) -> Fallbacks:
        """What holds for requests that say nothing themselves. Of two lists the first that is not empty counts."""
        router, general = self.router_settings, self.litellm_settings
        listed = {
            name: getattr(router, name) or getattr(general, name)
            for name in ("fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
        }
        table = table_in(listed["fallbacks"])
        if default := listed["default_fallbacks"]:
            table = {**table, EVERY: targets_in(default)}
        deepest = next((given for given in (router.max_fallbacks, general.max_fallbacks) if given is not None), DEEPEST)
        return Fallbacks(
            table,
            table_in(listed["context_window_fallbacks"]) or None,
            table_in(listed["content_policy_fallbacks"]) or None,
            deepest=deepest,
        )

    @property
    def allowed_fails(self) -> int:
        for given in (self.router_settings.allowed_fails, self.litellm_settings.allowed_fails):
            if given is not None:
                return given
        return 0

    def master_key(self, environ: Mapping[str, str] = os.environ) -> str | None:
        given = self.general_settings.master_key
        return given.get_secret_value() if given else setting(environ, "LITELLM_MASTER_KEY")

    def store_url(self, environ: Mapping[str, str] = os.environ) -> str:
        """POLLUX_STORE, else `pollux.store`, else `cache_params` of type redis, else the embedded server."""
        if chosen := setting(environ, "POLLUX_STORE") or self.pollux.store:
            return chosen
        if self.litellm_settings.cache_params.type == "redis":
            return redis_url(self.litellm_settings.cache_params, environ)
        return "embedded://"


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a file, and those that it includes.

    Raises:
        ConfigError

    """
    merged = read_merged(path)
    try:
        config = parse_config(merged.data, environ)
    except ConfigError as error:
        raise ConfigError("\n".join(map(merged.located, str(error).splitlines()))) from error
    config.came_from(merged)
    return config


def parse_config(data: dict[str, Any], environ: Mapping[str, str] = os.environ) -> Config:
    """Check the content of a config file.

    Raises:
        ConfigError

    """
    unset: dict[str, str] = {}
    resolved = _resolve(data, environ, "", unset)
    lacking = _take_out(resolved, unset)
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        complaints = [_complaint(detail, unset) for detail in error.errors()]
        complaints += [_not_set(path, name) for path, name in unset.items() if path.startswith(_NEEDED)]
        raise ConfigError("\n".join(dict.fromkeys(complaints))) from error
    unused = tuple(keys_without_effect(config))
    # LiteLLM's other sections, such as that of its database, may name variables that are set only where LiteLLM runs.
    needed = [path for path in unset if not any(path == key or path.startswith(f"{key}.") for key in unused)]
    if needed:
        raise ConfigError("\n".join(_not_set(path, unset[path]) for path in needed))
    config = _completed(config, lacking)
    _check(config)
    return config


def _completed(config: Config, lacking: Mapping[tuple[str, int], Mapping[str, Sequence[str]]]) -> Config:
    """The config with credentials in its deployments, and these with the variables that they lack."""
    for index, entry in enumerate(config.model_list):
        entry.lacking([name for names in lacking.get(("model_list", index), {}).values() for name in names])
    unset: dict[str, Mapping[str, Sequence[str]]] = {}
    for index, credential in enumerate(config.credential_list):
        # Of two with the same name the first one counts.
        unset.setdefault(credential.credential_name, lacking.get(("credential_list", index), {}))
    entries = [with_credential(entry, config.credential_list, unset) for entry in config.model_list]
    return config if entries == config.model_list else config.model_copy(update={"model_list": entries})


_NEEDED = ("pollux.", "general_settings.master_key", "litellm_settings.cache_params.")
"""Settings whose variables must be set, else the start fails. A deployment that lacks one is merely unusable."""
_MAY_LACK = (
    ("model_list", "litellm_params"),
    ("model_list", "model_info"),
    ("credential_list", "credential_values"),
)
"""Sections, and the mappings in their entries, whose variables need not be set."""


def _take_out(resolved: dict[str, Any], unset: dict[str, str]) -> dict[tuple[str, int], dict[str, list[str]]]:
    """Remove parameters of deployments and credentials that name unset variables.

    Returns these variables for each entry (its section and index), by parameter.
    """
    found: dict[tuple[str, int], dict[str, list[str]]] = {}
    for path in list(unset):
        section, *steps = path.split(".")
        if len(steps) > 2 and (section, steps[1]) in _MAY_LACK:
            holder: Any = resolved[section][int(steps[0])][steps[1]]
            if steps[2] != "model":
                holder.pop(steps[2], None)
            found.setdefault((section, int(steps[0])), {}).setdefault(steps[2], []).append(unset.pop(path))
    return found


def _not_set(path: str, name: str) -> str:
    return f"{path}: the environment variable {name} is not set"


def _complaint(detail: Any, unset: Mapping[str, str]) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if path in unset:
        return _not_set(path, unset[path])
    if detail["type"] == "extra_forbidden":
        return f"{path}: there is no such key. Known are: {', '.join(_model_around(path).model_fields)}"
    return f"{path}: {detail['msg']}"


def _model_around(path: str) -> type[_Ours]:
    """The section of ours in which this path stands."""
    if path.startswith("pollux.keys."):
        return Key
    return ModelPrice if path.startswith("pollux.prices.") else Pollux


def _check(config: Config) -> None:
    owners = [key.name for key in config.pollux.keys]
    if "master" in owners:
        raise ConfigError("pollux.keys: the name master belongs to the master key")
    if taken := [owner for owner in owners if GUEST.fullmatch(owner)]:
        raise ConfigError(f"pollux.keys: names like {taken[0]} belong to keys that are not listed, see accept_any_key")
    ids: dict[str, str] = {}
    for entry in config.model_list:
        given = entry.model_info.id
        if given and ids.setdefault(given, entry.model_name) != entry.model_name:
            raise ConfigError(f"model_list: two models have the model_info.id {given}")


def _resolve(value: Any, environ: Mapping[str, str], path: str, unset: dict[str, str]) -> Any:
    """Replace each `os.environ/NAME` by the variable's value; `unset` gets the paths and names of unset ones."""
    if isinstance(value, dict):
        return {key: _resolve(item, environ, f"{path}.{key}".lstrip("."), unset) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, environ, f"{path}.{index}", unset) for index, item in enumerate(value)]
    if isinstance(value, str) and value.startswith(ENVIRON):
        name = value.removeprefix(ENVIRON)
        if name in environ:
            return environ[name]
        unset[path] = name
    return value
