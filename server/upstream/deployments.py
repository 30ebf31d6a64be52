"""The registry of deployments: which endpoint serves a model, and which one an id names."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from server.config import Config
from server.sections import ModelEntry

# Providers that serve the Responses API at a well-known address. Everywhere else `api_base` tells.
_BASES = {
    "openai": "https://api.openai.com/v1",
    "xai": "https://api.x.ai/v1",
    "groq": "https://api.groq.com/openai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
_BASE_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "azure": ("AZURE_API_BASE",),
}
_AZURE_V1_VERSIONS = ("preview", "latest", "v1")
"""With these, Azure serves the Responses API under /openai/v1."""


@dataclass(frozen=True)
class Deployment:
    """One configured endpoint. Immutable: how it fares is kept in `health`."""

    id: str
    model_name: str
    provider: str
    """As composite ids name it."""
    listed_provider: str | None
    """As `polling_via_cache` is compared with: None where the config names none."""
    upstream_model: str
    base_url: str | None
    query: str
    """Without the question mark; Azure's api-version."""
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    stream_timeout_s: float | None = None
    """For the first byte of a stream, in place of the general one."""
    max_parallel_requests: int | None = None
    """Calls at once per process; the others wait."""
    fill_missing: bool = False
    survivable: bool = False
    """It has a background mode of its own, in which cached jobs run: their runs survive ours."""
    legacy_ids: frozenset[str] = frozenset()
    """Ids under which LiteLLM knew it: for decoding only."""

    def url(self, *path: str, query: str = "") -> str:
        """The URL of an operation below /responses. Every part is escaped: nothing in it can leave its segment."""
        tail = "".join("/" + quote(part, safe="") for part in path)
        joined = "&".join(part for part in (self.query, query) if part)
        return f"{self.base_url}/responses{tail}" + (f"?{joined}" if joined else "")

    def model_for(self, requested: str) -> str:
        """The upstream's name of the model that a client asked for: wildcards stand for what they matched."""
        if "*" not in self.model_name or "*" not in self.upstream_model:
            return self.upstream_model
        return self.upstream_model.replace("*", _wildcard_match(self.model_name, requested) or "", 1)

    def same_account(self, other: Deployment) -> bool:
        """Whether a response made through one can be continued through the other."""
        return (self.base_url, self.query, self.headers) == (other.base_url, other.query, other.headers)


class Deployments:
    """All deployments of a config, by public name and by id."""

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        default_timeout_s = config.litellm_settings.request_timeout or 600.0
        self.all = _told_apart([_deployment(entry, default_timeout_s, environ) for entry in config.model_list])
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

    def serving(self, model: str) -> list[Deployment]:
        """The deployments that serve this name: by alias, exactly, or by the most specific wildcard."""
        name = model if model in self._exact else self._aliases.get(model, model)
        if name in self._exact:
            return self._exact[name]
        for pattern in self._wildcards:
            if _wildcard_match(pattern, name) is not None:
                return self._exact[pattern]
        return []

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
    """What `*` stands for, or None."""
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


def _deployment(entry: ModelEntry, default_timeout_s: float, environ: Mapping[str, str]) -> Deployment:
    params = entry.litellm_params
    prefix, slash, rest = params.model.partition("/")
    listed = params.custom_llm_provider or (prefix if slash else None)
    provider = listed or "openai"
    # A model that names its own provider loses the prefix; `meta/llama` with custom_llm_provider does not.
    upstream_model = rest if slash and prefix == provider else params.model
    base_url, query = _address(entry, provider, environ)
    return Deployment(
        id=entry.model_info.id or _deployment_id(entry.model_name, provider, upstream_model, base_url),
        model_name=entry.model_name,
        provider=provider,
        listed_provider=listed,
        upstream_model=upstream_model,
        base_url=base_url,
        query=query,
        headers=_headers(entry, provider, environ),
        timeout_s=params.timeout or default_timeout_s,
        stream_timeout_s=params.stream_timeout,
        max_parallel_requests=params.max_parallel_requests,
        fill_missing=entry.model_info.fill_missing,
        survivable=entry.model_info.upstream_background,
        legacy_ids=frozenset({_litellm_id(entry)}),
    )


def _told_apart(deployments: list[Deployment]) -> list[Deployment]:
    """The same, the second and further ones of one id with ids of their own.

    They differ in the credential alone, and a response can be found only through the account that made it.
    """
    seen: Counter[str] = Counter()
    apart = []
    for deployment in deployments:
        count = seen[deployment.id]
        seen[deployment.id] += 1
        own = hashlib.sha256(f"{deployment.id}\n{count}".encode()).hexdigest() if count else deployment.id
        apart.append(replace(deployment, id=own))
    return apart


def _address(entry: ModelEntry, provider: str, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """Base URL (what comes before /responses) and query. Both are settled here, once, from the config alone."""
    params = entry.litellm_params
    base = params.api_base or next(
        (environ[name] for name in _BASE_VARIABLES.get(provider, ()) if environ.get(name)),
        _BASES.get(provider),
    )
    if base is None:
        return None, ""
    parts = urlsplit(base)
    path = parts.path.rstrip("/").removesuffix("/responses")
    query = parts.query
    if provider == "azure":
        stated = parse_qs(query).get("api-version", [None])[0]
        version = stated or params.api_version or environ.get("AZURE_API_VERSION") or "preview"
        if not path.endswith(("/openai", "/openai/v1")):
            path += "/openai"
        if version in _AZURE_V1_VERSIONS and not path.endswith("/v1"):
            path += "/v1"
        if stated is None:
            query = "&".join(part for part in (query, urlencode({"api-version": version})) if part)
    return f"{parts.scheme}://{parts.netloc}{path}", query


def _headers(entry: ModelEntry, provider: str, environ: Mapping[str, str]) -> dict[str, str]:
    params = entry.litellm_params
    key = params.api_key.get_secret_value() if params.api_key else environ.get(f"{provider.upper()}_API_KEY")
    headers = dict(params.extra_headers)
    if key:
        headers |= {"api-key": key} if provider == "azure" else {"Authorization": f"Bearer {key}"}
    if params.organization:
        headers["OpenAI-Organization"] = params.organization
    return headers


def _deployment_id(model_name: str, provider: str, upstream_model: str, base_url: str | None) -> str:
    """The same in every process and across restarts. Without the credential: rotating it must orphan nothing."""
    text = "\n".join((model_name, provider, upstream_model, base_url or ""))
    return hashlib.sha256(text.encode()).hexdigest()


def _litellm_id(entry: ModelEntry) -> str:
    """The id that LiteLLM gives this deployment: a hash over its name and all its parameters, in file order."""
    words = [entry.model_name]
    for name, value in entry.litellm_params.as_written.items():
        words += [name, json.dumps(value) if isinstance(value, dict) else str(value)]
    return hashlib.sha256("".join(words).encode()).hexdigest()
