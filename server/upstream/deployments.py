"""The registry of deployments: which endpoint serves a model, and which one an id names."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from server.config import Config
from server.config.sections import ConfigError, LiteLLMSettings, ModelEntry
from server.errors import Forbidden, ModelNotServed, shown
from server.protocol.defaults import NO_DEFAULTS, as_json, defaults_in
from server.protocol.dialects.manners import Dialect, Manners
from server.protocol.tokens import Price
from server.upstream.call import INPUT_TOKENS
from server.upstream.catalog import OWN_APIS
from server.upstream.credential import STATIC, Credential
from server.upstream.limits import cooldown_s, cost, limit, stream_timeout_s, timeout_s
from server.upstream.place import RESPONSES, Operation, Reach
from server.upstream.prices import price_of
from server.upstream.providers import key_variables, known, resolve
from server.upstream.reach import CREDENTIALS, has_key, key_in, reach
from server.upstream.transport import Verify, proxy_for, tls_of, verify_by

OTHER = "other"
"""The label of all models that the config does not have any more."""


@dataclass(frozen=True)
class Deployment:
    """One configured endpoint. Immutable: its current state is kept in `health`."""

    id: str
    model_name: str
    provider: str
    """The provider's name in composite ids."""
    listed_provider: str | None
    """The provider that `polling_via_cache` is compared with; None if the config names none."""
    upstream_model: str
    base_url: str | None
    query: str
    """The query of each URL, without the question mark; holds Azure's `api-version`."""
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    key_header: str = ""
    """The header in which a client's own key is sent instead of these credentials; empty: it is not sent."""
    credential: Credential = STATIC
    """What is shown with each request, beside the headers."""
    operation: Operation = RESPONSES
    """How a response is made."""
    manners: Manners = field(default_factory=Manners)
    """The dialect that it speaks, and how far its provider goes along with it."""
    stream_timeout_s: float | None = None
    """The timeout for the first byte of a stream; None: the general one applies."""
    num_retries: int | None = None
    """The retries of a request that was first sent here; None: as many as everywhere."""
    cooldown_s: float | None = None
    """How long it cools down; None: as long as every other."""
    max_parallel_requests: int | None = None
    """How many calls each process makes at once; further ones wait."""
    weight: float | None = None
    """Its share of the work of a model."""
    rpm: float | None = None
    """Calls in a minute and process, beyond which another deployment is preferred. Its share too, see `choice`."""
    tpm: float | None = None
    """Tokens in a minute and process, likewise."""
    order: int | None = None
    """Those with the lowest order are chosen while one of them is fit."""
    cost: float | None = None
    """The prices of a token of input and one of output, together."""
    fill_missing: bool = False
    survivable: bool = False
    """Cached jobs run in this provider's own background mode, so the provider's run survives if our process dies."""
    proxy: str | None = field(default=None, repr=False)
    """The URL of the proxy for this deployment; it may contain a password."""
    verify: Verify = True
    """How the endpoint's certificate is checked."""
    unusable: str | None = None
    """Why the deployment can't be used, and what to write in the config; None if it can be used."""
    price: Price | None = None
    """What its tokens cost; None if the config does not say."""
    legacy_ids: frozenset[str] = frozenset()
    """The ids that LiteLLM gives this deployment. They are used for decoding only."""
    defaults: Mapping[str, Any] = field(default_factory=lambda: NO_DEFAULTS, repr=False)
    """Fields of a request that get a value here where the client gives none, see `protocol.defaults`."""
    extra_body: Mapping[str, Any] = field(default_factory=lambda: NO_DEFAULTS, repr=False)
    """Fields of a request as the provider names them. They overrule all others."""

    @property
    def forwards_key(self) -> bool:
        """Whether the provider gets the client's own key, and decides by it."""
        return self.key_header != ""

    def headers_with(self, key: str) -> dict[str, str]:
        """Its headers, with a client's key in the place of all that would let the request in."""
        ours = CREDENTIALS | {self.key_header.lower()}
        return {name: value for name, value in self.headers.items() if name.lower() not in ours} | key_in(
            self.key_header, key
        )

    def let_in_like(self, newer: Deployment) -> Deployment:
        """This deployment with the credential of a newer one of the same id, if that is fit and at the same place."""

        def place(one: Deployment) -> tuple[Any, ...]:
            return one.base_url, one.operation, one.manners.dialect, one.key_header

        if newer.unusable is not None or place(newer) != place(self):
            return self
        return replace(self, headers=newer.headers, credential=newer.credential, proxy=newer.proxy, verify=newer.verify)

    def url(self, *path: str, query: str = "") -> str:
        """The URL of an operation below /responses. Every part is escaped, so it can't change the rest of the path."""
        tail = "".join("/" + quote(part, safe="") for part in path)
        joined = "&".join(part for part in (self.query, query) if part)
        return f"{self.base_url}/responses{tail}" + (f"?{joined}" if joined else "")

    def create_url(self, model: str, *, stream: bool = False) -> str:
        """The URL by which a response of this model, named as the upstream names it, is made."""
        path = self.operation.path_for(model, stream=stream)
        return f"{self.base_url}{path}" + (f"?{self.query}" if self.query else "")

    @property
    def counting_url(self) -> str:
        """Where Messages count the tokens of an input."""
        return f"{self.base_url}{self.operation.counting_path}" + (f"?{self.query}" if self.query else "")

    def offers(self, operation: str) -> bool:
        """Whether it has this operation on an input, or one that can stand in for it."""
        return self.keeps_responses or (operation == INPUT_TOKENS and self.operation.counting_path is not None)

    @property
    def keeps_responses(self) -> bool:
        """Whether responses made here can be read, continued and cancelled there; else only what we keep is known."""
        return self.manners.dialect is Dialect.RESPONSES

    def asks_to_keep(self, request: Mapping[str, Any]) -> bool:
        """Whether the provider is asked to keep the response that it makes for this request."""
        own, default = request.get("store"), self.defaults.get("store")
        return self.extra_body.get("store", default if own is None else own) is not False

    def model_for(self, requested: str) -> str:
        """The upstream's name of the requested model; a `*` in it is replaced by the text that the wildcard matched."""
        if "*" not in self.model_name or "*" not in self.upstream_model:
            return self.upstream_model
        return self.upstream_model.replace("*", _wildcard_match(self.model_name, requested) or "", 1)

    def same_account(self, other: Deployment) -> bool:
        """Whether a response made through one can be continued through the other."""
        mine, theirs = ((d.base_url, d.query, d.headers, d.key_header, d.credential) for d in (self, other))
        return mine == theirs


def not_for_guests(model: str) -> Forbidden:
    """The error for a guest's request that only deployments with a key of their own could serve."""
    return Forbidden(
        f"This API key is not configured here, and the model '{shown(model)}' is served only to keys that are. (Others "
        "go to deployments with model_info.forward_client_key alone.) Ask the operator for a key."
    )


class Deployments:
    """All deployments of a config, by public name and by id."""

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        self.all = _told_apart([_deployment(entry, config, environ) for entry in config.model_list])
        self._aliases = _aliases(config)
        self._exact: dict[str, list[Deployment]] = {}
        self._by_id: dict[str, Deployment] = {}
        for deployment in self.all:
            self._exact.setdefault(deployment.model_name, []).append(deployment)
            self._by_id.setdefault(deployment.id, deployment)
        for deployment in self.all:
            for legacy in deployment.legacy_ids:
                self._by_id.setdefault(legacy, deployment)
        # The longest pattern is the most specific one.
        self._wildcards = sorted((name for name in self._exact if "*" in name), key=len, reverse=True)

    @property
    def model_names(self) -> list[str]:
        return list(self._exact) + [alias for alias in self._aliases if alias not in self._exact]

    def usable(self, model: str) -> list[Deployment]:
        """The deployments that serve this name and can be used.

        Raises:
            ModelNotServed: deployments serve it, but none of them can be used

        """
        serving = self.serving(model)
        usable = [deployment for deployment in serving if deployment.unusable is None]
        if serving and not usable:
            raise ModelNotServed(model, serving[0].unusable or "")
        return usable

    def serving(self, model: str) -> list[Deployment]:
        """The deployments that serve this name: by alias, exactly, or by the most specific wildcard."""
        name = model if model in self._exact else self._aliases.get(model, model)
        if name in self._exact:
            return self._exact[name]
        for pattern in self._wildcards:
            if _wildcard_match(pattern, name) is not None:
                return self._exact[pattern]
        return []

    def label(self, model: str) -> str:
        """The name under which a model's usage is counted: a `model_name` of the config, which has only so many."""
        serving = self.serving(model)
        return serving[0].model_name if serving else OTHER

    def canonical(self, model: str) -> str:
        """The name behind an alias, or the name itself."""
        return model if model in self._exact else self._aliases.get(model, model)

    def get(self, deployment_id: str) -> Deployment | None:
        return self._by_id.get(deployment_id)

    def providers_of(self, model: str) -> Iterator[str | None]:
        """The providers of all deployments with exactly this `model_name`."""
        for deployment in self._exact.get(model, ()):
            yield deployment.listed_provider


def _wildcard_match(pattern: str, name: str) -> str | None:
    """The text that `*` matched, or None if the pattern does not match."""
    head, star, tail = pattern.partition("*")
    if not star or len(name) < len(head) + len(tail) or not (name.startswith(head) and name.endswith(tail)):
        return None
    return name[len(head) : len(name) - len(tail)]


def _aliases(config: Config) -> dict[str, str]:
    found = {}
    for alias, target in config.router_settings.model_group_alias.items():
        name = target.get("model") if isinstance(target, dict) else target
        if isinstance(name, str):
            found[alias] = name
    return found


def _deployment(entry: ModelEntry, config: Config, environ: Mapping[str, str]) -> Deployment:
    params = entry.litellm_params
    prefix, slash, rest = params.model.partition("/")
    listed = params.custom_llm_provider or (prefix if slash else None)
    provider = listed or "openai"
    # A model that names its own provider loses the prefix; `meta/llama` with custom_llm_provider does not.
    upstream_model = rest if slash and prefix == provider else params.model
    resolved = resolve(params.model, listed, params.api_base)
    stated = params.ssl_verify if params.ssl_verify is not None else config.litellm_settings.ssl_verify
    verify = verify_by(stated, environ)
    reached = reach(entry, resolved, environ, verify)
    upstream_model = reached.model or upstream_model
    made = Deployment(
        id=entry.model_info.id or _deployment_id(entry.model_name, provider, upstream_model, reached.base_url),
        model_name=entry.model_name,
        provider=provider,
        listed_provider=listed,
        upstream_model=upstream_model,
        base_url=reached.base_url,
        query=reached.query,
        operation=reached.operation,
        headers=reached.headers,
        key_header=reached.key_header,
        credential=reached.credential,
        manners=_manners(entry, resolved, reached.manners, config.litellm_settings),
        timeout_s=timeout_s(params, config) or 600.0,
        stream_timeout_s=stream_timeout_s(params, config),
        num_retries=params.num_retries,
        cooldown_s=cooldown_s(entry),
        max_parallel_requests=params.max_parallel_requests,
        weight=params.weight,
        rpm=limit(entry, "rpm"),
        tpm=limit(entry, "tpm"),
        order=params.order,
        cost=cost(entry),
        price=price_of(entry, config.pollux.prices),
        # A translated answer says nothing of most keys.
        fill_missing=entry.model_info.fill_missing or reached.manners.dialect is not Dialect.RESPONSES,
        # A run in the provider's background may have to be cancelled after its end here, when the key is gone.
        survivable=(
            entry.model_info.upstream_background
            and reached.manners.dialect is Dialect.RESPONSES
            and not reached.key_header
        ),
        verify=verify,
        unusable=_why_unusable(entry, resolved, reached),
        legacy_ids=frozenset({_litellm_id(entry)}),
        defaults=defaults_in(params.as_written),
        extra_body=MappingProxyType(as_json("extra_body", params.extra_body)),
    )
    return _with_way(made)


def _with_way(deployment: Deployment) -> Deployment:
    """The same deployment with its proxy; marked as unusable if the proxy or the certificate file is invalid."""
    try:
        tls_of(deployment.verify)
        return replace(deployment, proxy=proxy_for(deployment.base_url) if deployment.base_url else None)
    except ConfigError as error:
        return replace(deployment, unusable=deployment.unusable or str(error))


def _manners(entry: ModelEntry, provider: str | None, manners: Manners, general: LiteLLMSettings) -> Manners:
    params = entry.litellm_params
    drops = params.drop_params if params.drop_params is not None else general.drop_params
    return replace(
        manners,
        provider=provider or "openai",
        most_tokens=entry.model_info.max_output_tokens,
        drops=drops,
        dropped=frozenset(params.additional_drop_params),
    )


def _why_unusable(entry: ModelEntry, provider: str | None, reached: Reach) -> str | None:
    """The first thing missing in the deployment's config, and what to write there; None if nothing is missing."""
    params, about = entry.litellm_params, known(provider)
    if entry.unset:
        names = " and ".join(entry.unset)
        return f"the environment variable {names} is not set"
    if flaw := entry.flaw or reached.flaw:
        return flaw
    if provider is None and reached.base_url is None:
        return (
            f"no provider is known for litellm_params.model '{params.model}': write it as openai/{params.model}, or "
            "set litellm_params.api_base to an endpoint that serves the Responses API"
        )
    if reached.base_url is None:
        spoken = OWN_APIS.get(provider or "")
        why = f"speaks {spoken}, which is not spoken here" if spoken else "has no address here"
        return (
            f"its provider '{provider}' {why}: set {about.needs_base} to an endpoint that serves the Responses API, "
            "such as a LiteLLM proxy, or one that serves Chat Completions and model_info.api to chat"
        )
    let_in = has_key(reached.headers) or reached.key_header or reached.credential is not STATIC
    if params.api_base is None and reached.base_url == about.base_url and about.needs_key and not let_in:
        names = " or ".join(key_variables(provider or ""))
        return f"it has no key: set litellm_params.api_key, or {names}"
    return None


def _told_apart(deployments: list[Deployment]) -> list[Deployment]:
    """The same deployments, where each one that repeats an earlier id gets an id of its own.

    Deployments with the same id differ only in their credential, and a response can be read only with the account that
    made it.
    """
    seen: Counter[str] = Counter()
    apart = []
    for deployment in deployments:
        count = seen[deployment.id]
        seen[deployment.id] += 1
        own = hashlib.sha256(f"{deployment.id}\n{count}".encode()).hexdigest() if count else deployment.id
        apart.append(replace(deployment, id=own))
    return apart


def _deployment_id(model_name: str, provider: str, upstream_model: str, base_url: str | None) -> str:
    """A hash that is the same in every process. It omits the credential, so that rotating a key orphans no response."""
    text = "\n".join((model_name, provider, upstream_model, base_url or ""))
    return hashlib.sha256(text.encode()).hexdigest()


def _litellm_id(entry: ModelEntry) -> str:
    """The id that LiteLLM gives this deployment: a hash over its name and all its parameters, in file order."""
    words = [entry.model_name]
    for name, value in entry.litellm_params.as_written.items():
        words += [name, json.dumps(value) if isinstance(value, dict) else str(value)]
    return hashlib.sha256("".join(words).encode()).hexdigest()
