"""How a deployment is reached: the dialect that it speaks, its URLs, and the headers with its credential."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

from server.config.sections import ModelEntry, setting
from server.protocol.dialects.manners import Dialect
from server.upstream.access import Access, access
from server.upstream.bedrock import bedrock
from server.upstream.place import Operation, Reach
from server.upstream.providers import base_of, key_of, known
from server.upstream.transport import Verify
from server.upstream.vertex import vertex

OPERATIONS = {
    Dialect.RESPONSES: "/responses",
    Dialect.CHAT: "/chat/completions",
    Dialect.MESSAGES: "/messages",
}
CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key"})
"""The headers by which keys are sent, in lower case."""
_AZURE_V1_VERSIONS = ("preview", "latest", "v1")
"""With these, Azure serves the APIs under /openai/v1."""
_PLATFORMS = {"bedrock": bedrock, "vertex_ai": vertex, "vertex_ai_beta": vertex}
"""Those that serve the models of several makers by several APIs."""
_FOUNDRY = ".services.ai.azure.com"
_CLAUDE = re.compile(r"claude", re.IGNORECASE)


def reach(entry: ModelEntry, provider: str | None, environ: Mapping[str, str], verify: Verify) -> Reach:
    """How this deployment of this provider is reached; without a base URL if nobody knows where."""
    platform = _PLATFORMS.get(provider or "")
    if platform is not None and not _is_behind_a_gateway(entry):
        headers = _headers(entry, provider, Dialect.CHAT, environ)
        forwards = entry.model_info.forward_client_key
        reached = platform(entry, headers, environ, let_in=has_key(headers) or forwards)
        return replace(reached, key_header="Authorization" if forwards else "")
    dialect = _dialect(entry, provider)
    manners = replace(known(provider).manners, dialect=dialect)
    headers = _headers(entry, provider, dialect, environ)
    key_header = _key_header(provider, dialect) if entry.model_info.forward_client_key else ""
    found = Access() if has_key(headers) or key_header else access(entry.litellm_params, provider, environ, verify)
    if found.token is not None:
        headers |= key_in("Authorization", found.token)
    base = entry.litellm_params.api_base or base_of(provider, environ)
    if base is None:
        return Reach(manners, None, "", Operation(""), headers, found.credential, found.flaw, key_header)
    parts = urlsplit(base)
    path = _without_operation(parts.path.rstrip("/"))
    query, operation = parts.query, OPERATIONS[dialect]
    if provider == "azure":
        path, query, operation = _azure(entry, dialect, path, query, environ)
    elif provider == "azure_ai":
        path, query, operation = _azure_ai(entry, dialect, parts.hostname or "", path, query)
    else:
        path = _completed(path, known(provider).ends)
    base = f"{parts.scheme}://{parts.netloc}{path}"
    counting = f"{operation}/count_tokens" if dialect is Dialect.MESSAGES else None
    made = Operation(operation, counting_path=counting)
    return Reach(manners, base, query, made, headers, found.credential, found.flaw, key_header)


def _is_behind_a_gateway(entry: ModelEntry) -> bool:
    """Whether the address is that of a gateway that speaks the Responses API, and not that of the platform's own."""
    return entry.model_info.api == "responses" and entry.litellm_params.api_base is not None


def has_key(headers: Mapping[str, str]) -> bool:
    """Whether these headers let a request in."""
    return not CREDENTIALS.isdisjoint(name.lower() for name in headers)


def _dialect(entry: ModelEntry, provider: str | None) -> Dialect:
    info = entry.model_info
    if info.api is not None:
        return Dialect(info.api)
    if info.mode in (Dialect.RESPONSES, Dialect.CHAT):
        return Dialect(info.mode)
    if provider == "azure_ai" and _CLAUDE.search(entry.litellm_params.model):
        return Dialect.MESSAGES
    return known(provider).manners.dialect


def _without_operation(path: str) -> str:
    """The path without an operation, which some configs write behind the base."""
    for operation in ("/v1/chat", "/v2/chat", *OPERATIONS.values()):
        if path.endswith(operation):
            return path.removesuffix(operation)
    return path


def _completed(path: str, ends: str) -> str:
    """The path with the end that the provider's have. A longer end is added only where the path has none, or a part."""
    segments = ends.split("/")[1:]
    for count in range(len(segments), 0, -1):
        if path.endswith("/" + "/".join(segments[:count])):
            return "/".join([path, *segments[count:]])
    return path + ends if not path or len(segments) == 1 else path


def _azure(
    entry: ModelEntry, dialect: Dialect, path: str, query: str, environ: Mapping[str, str]
) -> tuple[str, str, str]:
    stated = parse_qs(query).get("api-version", [None])[0]
    version = stated or entry.litellm_params.api_version or setting(environ, "AZURE_API_VERSION") or "preview"
    operation = OPERATIONS[dialect]
    if "/openai/deployments/" not in path:
        if not path.endswith(("/openai", "/openai/v1")):
            path += "/openai"
        if version in _AZURE_V1_VERSIONS and not path.endswith("/v1"):
            path += "/v1"
        if dialect is Dialect.CHAT and not path.endswith("/v1"):
            operation = "/deployments/{model}" + operation
    if stated is None:
        query = "&".join(part for part in (query, urlencode({"api-version": version})) if part)
    return path, query, operation


def _azure_ai(entry: ModelEntry, dialect: Dialect, host: str, path: str, query: str) -> tuple[str, str, str]:
    """Azure's model catalogue: https://learn.microsoft.com/azure/ai-foundry/foundry-models/concepts/endpoints."""
    if dialect is Dialect.MESSAGES:
        path = _completed(path.removesuffix("/models"), "/anthropic/v1")
    elif host.endswith(_FOUNDRY) and not path:
        path = "/models" if dialect is Dialect.CHAT else "/openai/v1"
    version = entry.litellm_params.api_version
    if version and "api-version" not in query:
        query = "&".join(part for part in (query, urlencode({"api-version": version})) if part)
    return path, query, OPERATIONS[dialect]


def _headers(entry: ModelEntry, provider: str | None, dialect: Dialect, environ: Mapping[str, str]) -> dict[str, str]:
    """The headers that the provider demands, the configured ones, and the key.

    A key from the environment goes only to the provider that it is for.
    """
    params, about = entry.litellm_params, known(provider)
    key = params.api_key.get_secret_value() if params.api_key else key_of(provider, environ) if provider else None
    headers = dict(about.headers)
    if dialect is Dialect.MESSAGES:
        headers.setdefault("anthropic-version", "2023-06-01")
    headers |= params.extra_headers
    if key:
        headers |= key_in(_key_header(provider, dialect), key)
    if params.organization:
        headers["OpenAI-Organization"] = params.organization
    return headers


def _key_header(provider: str | None, dialect: Dialect) -> str:
    return known(provider).key_header if dialect is not Dialect.MESSAGES else "x-api-key"


def key_in(header: str, key: str) -> dict[str, str]:
    """The header with a key."""
    return {header: f"Bearer {key}" if header == "Authorization" else key}
