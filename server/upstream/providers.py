"""Providers: who serves a model, where, and which variable holds the key. All of it data.

Names, variables and the way a model without a prefix is resolved are LiteLLM's (`get_llm_provider_logic.py` and the
lists behind it): a config must mean here what it means there. Above all no key may go to another company than there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from server.sections import setting

ANY_MODEL = "*"


@dataclass(frozen=True, slots=True)
class Provider:
    """Where a provider serves the Responses API, if it does so at one well-known place."""

    base_url: str | None = None
    base_variables: tuple[str, ...] = ()
    """Environment variables that name another place; the first that is set counts."""
    needs_base: str = "litellm_params.api_base"
    """What to set where nothing tells the place."""


PROVIDERS = {
    "openai": Provider("https://api.openai.com/v1", ("OPENAI_BASE_URL", "OPENAI_API_BASE")),
    "azure": Provider(None, ("AZURE_API_BASE",), "litellm_params.api_base, or AZURE_API_BASE,"),
    "xai": Provider("https://api.x.ai/v1", ("XAI_API_BASE",)),
    "groq": Provider("https://api.groq.com/openai/v1", ("GROQ_API_BASE",)),
    "openrouter": Provider("https://openrouter.ai/api/v1", ("OPENROUTER_API_BASE",)),
}
_NOWHERE = Provider()

_HOSTS = (
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure"),
    (".cognitiveservices.azure.com", "azure"),
    ("api.x.ai", "xai"),
    ("api.groq.com", "groq"),
    ("openrouter.ai", "openrouter"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("api.mistral.ai", "mistral"),
    ("api.deepseek.com", "deepseek"),
    ("api.perplexity.ai", "perplexity"),
    ("api.deepinfra.com", "deepinfra"),
    ("api.together.xyz", "together_ai"),
    ("api.fireworks.ai", "fireworks_ai"),
    ("integrate.api.nvidia.com", "nvidia_nim"),
    ("api.cerebras.ai", "cerebras"),
    ("api.sambanova.ai", "sambanova"),
)
"""Whose hosts these are: the end of a host's name, and the provider."""

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
"""Models that are known by their name alone."""


def resolve(model: str, listed: str | None, api_base: str | None) -> str | None:
    """The provider of a deployment: as listed, else whose host it names, else of its family; None: nobody knows."""
    if listed is not None:
        return listed
    host = (urlsplit(api_base).hostname or "") if api_base else ""
    for end, provider in _HOSTS:
        if host == end.lstrip(".") or host.endswith(end if end.startswith(".") else f".{end}"):
            return provider
    if model == ANY_MODEL:
        return "openai"
    return next((provider for family, provider in _FAMILIES if family.match(model)), None)


def known(provider: str | None) -> Provider:
    return PROVIDERS.get(provider or "", _NOWHERE)


def base_of(provider: str | None, environ: Mapping[str, str]) -> str | None:
    """Where its Responses API is, if the config says nothing."""
    found = known(provider)
    return next((base for name in found.base_variables if (base := setting(environ, name))), found.base_url)


def key_variable(provider: str) -> str:
    return f"{provider.upper().replace('-', '_')}_API_KEY"
