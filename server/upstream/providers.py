"""Providers, as data: which one serves a model, at which address, and which environment variable holds its key.

The names, the variables and how a model without a prefix is resolved are LiteLLM's (`get_llm_provider_logic.py` and the
lists behind it), because a config must mean the same here. Above all, a key must go to the same company as there.
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
    """The address at which a provider serves the Responses API, if it has a well-known one."""

    base_url: str | None = None
    base_variables: tuple[str, ...] = ()
    """Environment variables that override the address; the first one that is set counts."""
    needs_base: str = "litellm_params.api_base"
    """The setting that an error message asks for if the address is unknown."""


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
    """The provider's base URL if the config names none: from the environment, else the well-known one."""
    found = known(provider)
    return next((base for name in found.base_variables if (base := setting(environ, name))), found.base_url)


def key_variable(provider: str) -> str:
    return f"{provider.upper().replace('-', '_')}_API_KEY"
