"""How deployments of LiteLLM's providers are reached: dialect, URL and credential."""

from __future__ import annotations

from typing import Any

import pytest

from server.config import parse_config
from server.upstream.catalog import OWN_APIS, PROVIDERS
from server.upstream.credential import STATIC
from server.upstream.deployments import Deployment, Deployments
from server.upstream.entra import ClientSecret
from server.upstream.reach import CREDENTIALS

CHAT, MESSAGES, RESPONSES = "/chat/completions", "/messages", "/responses"


def deployment(model: str, environ: dict[str, str] | None = None, info: Any = None, **params: Any) -> Deployment:
    entry = {"model_name": "m", "litellm_params": {"model": model, **params}, "model_info": info or {}}
    environ = environ or {}
    return Deployments(parse_config({"model_list": [entry]}, environ=environ), environ=environ).all[0]


def url(made: Deployment) -> str:
    return made.create_url(made.upstream_model)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-5", "https://api.openai.com/v1/responses"),
        ("xai/grok-4", "https://api.x.ai/v1/responses"),
        ("anthropic/claude-sonnet-4-5", "https://api.anthropic.com/v1/messages"),
        ("claude-sonnet-4-5", "https://api.anthropic.com/v1/messages"),
        ("gemini/gemini-2.5-pro", "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        ("groq/llama-3.3-70b", "https://api.groq.com/openai/v1/chat/completions"),
        ("mistral/mistral-large-latest", "https://api.mistral.ai/v1/chat/completions"),
        ("deepseek/deepseek-chat", "https://api.deepseek.com/v1/chat/completions"),
        ("deepseek-chat", "https://api.deepseek.com/v1/chat/completions"),
        ("openrouter/anthropic/claude-sonnet-4", "https://openrouter.ai/api/v1/chat/completions"),
        ("together_ai/meta-llama/Llama-3", "https://api.together.xyz/v1/chat/completions"),
        ("fireworks_ai/accounts/f/models/m", "https://api.fireworks.ai/inference/v1/chat/completions"),
        ("perplexity/sonar", "https://api.perplexity.ai/chat/completions"),
        ("cohere/command-a", "https://api.cohere.ai/compatibility/v1/chat/completions"),
        ("cerebras/llama-4", "https://api.cerebras.ai/v1/chat/completions"),
        ("nvidia_nim/meta/llama3", "https://integrate.api.nvidia.com/v1/chat/completions"),
        ("huggingface/org/model", "https://router.huggingface.co/v1/chat/completions"),
        ("ollama/llama3", "http://localhost:11434/v1/chat/completions"),
        ("lm_studio/qwen", "http://localhost:1234/v1/chat/completions"),
    ],
)
def test_each_provider_has_its_own_address(model: str, expected: str) -> None:
    assert url(deployment(model)) == expected


@pytest.mark.parametrize(
    ("model", "base", "expected"),
    [
        ("anthropic/claude-x", "http://h", "http://h/v1/messages"),
        ("anthropic/claude-x", "http://h/v1/", "http://h/v1/messages"),
        ("anthropic/claude-x", "http://h/v1/messages", "http://h/v1/messages"),
        ("anthropic/claude-x", "http://h/anthropic", "http://h/anthropic/v1/messages"),
        ("gemini/g", "http://h", "http://h/v1beta/openai/chat/completions"),
        ("gemini/g", "http://h/v1beta", "http://h/v1beta/openai/chat/completions"),
        ("gemini/g", "http://h/v1beta/openai/", "http://h/v1beta/openai/chat/completions"),
        ("gemini/g", "http://h/other/v1", "http://h/other/v1/chat/completions"),
        ("ollama_chat/l", "http://h:11434", "http://h:11434/v1/chat/completions"),
        ("mistral/m", "http://h", "http://h/v1/chat/completions"),
        ("cohere/c", "http://h/v2/chat", "http://h/compatibility/v1/chat/completions"),
        ("groq/l", "http://h/openai/v1/chat/completions", "http://h/openai/v1/chat/completions"),
        ("hosted_vllm/l", "http://h:8000/v1", "http://h:8000/v1/chat/completions"),
        ("databricks/d", "http://h/serving-endpoints", "http://h/serving-endpoints/chat/completions"),
        ("cloudflare/@cf/x", "http://h/accounts/a/ai/v1", "http://h/accounts/a/ai/v1/chat/completions"),
        ("openai/x", "http://h/v1", "http://h/v1/responses"),
        ("openai_like/x", "http://h/v1", "http://h/v1/chat/completions"),
        ("litellm_proxy/x", "http://h:4000", "http://h:4000/responses"),
        (
            "azure/gpt",
            "https://a.openai.azure.com",
            "https://a.openai.azure.com/openai/v1/responses?api-version=preview",
        ),
        ("azure_ai/x", "https://a.services.ai.azure.com", "https://a.services.ai.azure.com/models/chat/completions"),
        (
            "azure_ai/claude-sonnet-4-5",
            "https://a.services.ai.azure.com",
            "https://a.services.ai.azure.com/anthropic/v1/messages",
        ),
    ],
)
def test_an_address_of_the_config_is_completed_as_litellm_does(model: str, base: str, expected: str) -> None:
    assert url(deployment(model, api_base=base)) == expected


@pytest.mark.parametrize(
    ("version", "base", "expected"),
    [
        ("2024-10-21", "https://a", "https://a/openai/deployments/gpt%2F4/chat/completions?api-version=2024-10-21"),
        ("v1", "https://a", "https://a/openai/v1/chat/completions?api-version=v1"),
        (
            "2024-10-21",
            "https://a/openai/deployments/gpt-4",
            "https://a/openai/deployments/gpt-4/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_azure_serves_chat_completions_below_its_own_deployment(version: str, base: str, expected: str) -> None:
    made = deployment("azure/gpt/4", info={"mode": "chat"}, api_base=base, api_version=version)
    assert url(made) == expected


@pytest.mark.parametrize(
    ("info", "operation"),
    [
        ({"api": "chat"}, CHAT),
        ({"api": "messages"}, MESSAGES),
        ({"mode": "chat"}, CHAT),
        ({"mode": "responses"}, RESPONSES),
    ],
)
def test_the_config_overrules_the_dialect(info: dict[str, str], operation: str) -> None:
    assert url(deployment("openai/x", info=info, api_base="http://h/v1")) == f"http://h/v1{operation}"


def test_each_provider_gets_its_key_as_it_wants_it() -> None:
    def headers(model: str, **params: Any) -> dict[str, str]:
        made = deployment(model, {}, api_key="k", api_base="https://h", **params)
        return {name: value for name, value in made.headers.items() if name.lower() in CREDENTIALS}

    assert headers("anthropic/claude-x") == {"x-api-key": "k"}
    assert headers("azure/x") == {"api-key": "k"}
    assert headers("groq/x") == {"Authorization": "Bearer k"}
    assert deployment("anthropic/claude-x", api_key="k").headers["anthropic-version"] == "2023-06-01"
    entra = deployment("azure/x", api_base="https://h", azure_ad_token="t")
    assert entra.headers["Authorization"] == "Bearer t"


APPLICATION = {"tenant_id": "t", "client_id": "c", "client_secret": "s"}
APPLICATION_VARIABLES = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}


def azure(environ: Any = None, **params: Any) -> Deployment:
    return deployment("azure/x", environ, api_base="https://h", **params)


def test_azure_takes_a_key_before_an_application_and_that_before_a_token() -> None:
    """LiteLLM's order (`azure/common_utils.py`)."""
    key = azure({"AZURE_API_KEY": "k"}, **APPLICATION, azure_ad_token="token")
    assert key.credential is STATIC
    assert key.headers == {"api-key": "k"}
    for made in (azure(**APPLICATION, azure_ad_token="token"), azure(APPLICATION_VARIABLES)):
        assert made.credential == ClientSecret("t", "c", "s")
        assert made.headers == {}
        assert made.unusable is None
    assert azure({"AZURE_AD_TOKEN": "token"}).headers == {"Authorization": "Bearer token"}
    assert azure(APPLICATION_VARIABLES, extra_headers={"authorization": "own"}).credential is STATIC


def test_azures_authority_and_scope_can_be_others() -> None:
    environ = {"AZURE_AUTHORITY_HOST": "login.chinacloudapi.cn", "AZURE_SCOPE": "scope"}
    made = azure(environ, **APPLICATION)
    assert made.credential == ClientSecret("t", "c", "s", "scope", "https://login.chinacloudapi.cn")
    assert azure(environ, **APPLICATION, azure_scope="own").credential.scope == "own"  # type: ignore[attr-defined]


def test_an_application_of_the_environment_asks_for_azure_only() -> None:
    assert deployment("openai/x", APPLICATION_VARIABLES, api_key="k").credential is STATIC
    assert deployment("groq/x", APPLICATION_VARIABLES, **APPLICATION).credential is STATIC


def test_half_an_application_says_what_is_missing() -> None:
    told = str(azure({"AZURE_TENANT_ID": "t"}, client_id="c").unusable)
    assert "litellm_params.client_secret (or AZURE_CLIENT_SECRET)" in told
    assert "tenant_id" not in told
    assert azure({"AZURE_TENANT_ID": "t"}).unusable is None, "that of somebody else"
    assert "oidc/" in str(azure(azure_ad_token="oidc/github").unusable)


def test_deployments_of_one_application_are_one_account() -> None:
    assert azure(**APPLICATION).same_account(azure(APPLICATION_VARIABLES))
    assert not azure(**APPLICATION).same_account(azure(**{**APPLICATION, "client_id": "other"}))


def test_no_secret_is_shown() -> None:
    assert "'s'" not in repr(azure(**APPLICATION))


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_key_of_the_environment_goes_to_its_own_provider_only(name: str) -> None:
    keys = {variable: f"sk-{variable}" for one in PROVIDERS.values() for variable in one.key_variables}
    made = deployment(f"{name}/x", keys, api_base="https://h/v1")
    sent = " ".join(made.headers.values())
    own = PROVIDERS[name].key_variables
    assert (f"sk-{own[0]}" in sent) if own else ("sk-" not in sent)


def test_a_keyless_provider_needs_no_key_and_others_say_which() -> None:
    assert deployment("ollama/l").unusable is None
    assert "ANTHROPIC_API_KEY" in str(deployment("claude-sonnet-4-5").unusable)
    assert "TOGETHER_API_KEY or TOGETHER_AI_API_KEY" in str(deployment("together_ai/x").unusable)


@pytest.mark.parametrize("name", sorted(OWN_APIS))
def test_a_provider_with_an_api_of_its_own_needs_a_proxy(name: str) -> None:
    assert "LiteLLM proxy" in str(deployment(f"{name}/x").unusable)
    assert url(deployment(f"{name}/x", api_base="http://h:4000")) == "http://h:4000/responses"


def test_cloudflares_address_has_the_account_in_it() -> None:
    made = deployment("cloudflare/@cf/x", {"CLOUDFLARE_ACCOUNT_ID": "acc", "CLOUDFLARE_API_KEY": "k"})
    assert url(made) == "https://api.cloudflare.com/client/v4/accounts/acc/ai/v1/chat/completions"
    assert made.unusable is None
