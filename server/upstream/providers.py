"""Which provider serves a model, at which address, and which environment variable holds its key (see `catalog`).

The names, the variables and how a model without a prefix is resolved are LiteLLM's (`get_llm_provider_logic.py` and the
lists behind it), because a config must mean the same here. Above all, a key must go to the same company as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, urlsplit

from server.config.sections import setting
from server.protocol.dialects.manners import Dialect, Manners
from server.upstream.catalog import PROVIDERS, Provider

ANY_MODEL = "*"
_NOWHERE = Provider(manners=Manners(Dialect.RESPONSES))

_FURTHER_HOSTS = {
    ".openai.azure.com": "azure",
    ".cognitiveservices.azure.com": "azure",
    ".services.ai.azure.com": "azure_ai",
    "api.together.ai": "together_ai",
    "api.perplexity.ai": "perplexity",
}
_LOOPBACK = ("localhost", "127.0.0.1")
_HOSTS = _FURTHER_HOSTS | {
    host: name
    for name, provider in reversed(list(PROVIDERS.items()))
    if provider.base_url and (host := urlsplit(provider.base_url).hostname or "") not in _LOOPBACK
}
"""The end of a host's name, and the provider that owns it."""

_FAMILIES = tuple(
    (re.compile(pattern, re.IGNORECASE), provider)
    for pattern, provider in (
        (r"(ft:)?(gpt-|chatgpt-|o[1-9](-|$)|codex-|computer-use|davinci|babbage)", "openai"),
        (r"claude", "anthropic"),
        (r"gemini-|medlm|text-bison|chat-bison", "vertex_ai"),
        (r"deepseek-", "deepseek"),
        (r"command|c4ai-", "cohere"),
        (r"mistral-|magistral-|ministral-|codestral|pixtral-|devstral-|open-mi[sx]tral", "mistral"),
        (r"jamba|j2-", "ai21"),
        (r"((us|eu|apac|jp|au|global)\.)?(anthropic|amazon|meta|cohere|mistral|ai21|qwen)\.", "bedrock"),
    )
)
"""Patterns of model names that identify the provider without a prefix."""


@lru_cache(4096)
def resolve(model: str, listed: str | None, api_base: str | None) -> str | None:
    """The provider of a deployment: as listed, else whose host it names, else of its family; None: nobody knows."""
    if listed is not None:
        return listed
    host = (urlsplit(api_base).hostname or "") if api_base else ""
    for end, provider in _HOSTS.items():
        if host == end.lstrip(".") or host.endswith(end if end.startswith(".") else f".{end}"):
            return provider
    if model == ANY_MODEL:
        return "openai"
    return next((provider for family, provider in _FAMILIES if family.match(model)), None)


def known(provider: str | None) -> Provider:
    """What is known of a provider. One that nobody knows is taken for one that serves the Responses API."""
    return PROVIDERS.get(provider or "", _NOWHERE)


def base_of(provider: str | None, environ: Mapping[str, str]) -> str | None:
    """The provider's base URL if the config names none: from the environment, else the well-known one."""
    found = known(provider)
    stated = next((base for name in found.base_variables if (base := setting(environ, name))), None)
    if stated is None and provider == "cloudflare" and (account := setting(environ, "CLOUDFLARE_ACCOUNT_ID")):
        return f"https://api.cloudflare.com/client/v4/accounts/{quote(account, safe='')}/ai/v1"
    return stated or found.base_url


def key_variables(provider: str) -> tuple[str, ...]:
    """The environment variables that may hold the provider's key, the first one that is set counts."""
    return known(provider).key_variables or (f"{provider.upper().replace('-', '_')}_API_KEY",)


def key_of(provider: str, environ: Mapping[str, str]) -> str | None:
    """The provider's key in the environment."""
    return next((key for name in key_variables(provider) if (key := setting(environ, name))), None)
