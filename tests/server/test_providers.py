"""Who serves a model that names no provider: as LiteLLM resolves it, and never by guessing for a key."""

from __future__ import annotations

from typing import Any

import pytest

from server.config import parse_config
from server.errors import ModelNotServed
from server.upstream.deployments import Deployment, Deployments
from server.upstream.providers import resolve

KEYS = {
    "OPENAI_API_KEY": "sk-openai",
    "ANTHROPIC_API_KEY": "sk-anthropic",
    "AZURE_API_KEY": "sk-azure",
    "MISTRAL_API_KEY": "sk-mistral",
    "XAI_API_KEY": " sk-xai\n",
}


def deployments(*made: dict[str, Any]) -> Deployments:
    model_list = [{"model_name": "m", "litellm_params": params} for params in made]
    return Deployments(parse_config({"model_list": model_list}, environ=KEYS), environ=KEYS)


def deployment(**params: Any) -> Deployment:
    return deployments(params).all[0]


@pytest.mark.parametrize(
    ("model", "api_base", "provider"),
    [
        ("gpt-5.2", None, "openai"),
        ("ft:gpt-4o:acme::x", None, "openai"),
        ("o3", None, "openai"),
        ("o4-mini-deep-research", None, "openai"),
        ("chatgpt-4o-latest", None, "openai"),
        ("*", None, "openai"),
        ("claude-sonnet-4-5-20250929", None, "anthropic"),
        ("gemini-2.5-pro", None, "vertex_ai"),
        ("deepseek-chat", None, "deepseek"),
        ("command-r-plus", None, "cohere"),
        ("mistral-large-latest", None, "mistral"),
        ("us.anthropic.claude-sonnet-4", None, "bedrock"),
        ("llama-4", None, None),
        ("olmo-2", None, None),
        ("llama-4", "https://api.groq.com/openai/v1", "groq"),
        ("gpt-5", "https://acme.openai.azure.com", "azure"),
        ("x", "https://api.openai.com/v1", "openai"),
        ("x", "https://api.openai.com.evil.example/v1", None),
        ("x", "https://evilapi.openai.com/v1", None),
    ],
)
def test_a_model_without_a_prefix_is_resolved_by_its_host_or_its_family(
    model: str, api_base: str | None, provider: str | None
) -> None:
    assert resolve(model, None, api_base) == provider
    assert resolve(model, "stated", api_base) == "stated"


@pytest.mark.parametrize(
    "params",
    [
        {"model": "gemini-2.5-pro"},
        {"model": "llama-4"},
        {"model": "homemade/x"},
        {"model": "x", "custom_llm_provider": "sagemaker"},
    ],
)
def test_what_no_endpoint_serves_can_not_be_used_and_gets_no_key(params: dict[str, Any]) -> None:
    made = deployment(**params)
    assert made.unusable is not None
    assert made.base_url is None
    assert "sk-openai" not in str(dict(made.headers))


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({"model": "openai/gpt-5"}, "Bearer sk-openai"),
        ({"model": "gpt-5"}, "Bearer sk-openai"),
        ({"model": "xai/grok-4"}, "Bearer sk-xai"),
        ({"model": "llama-4", "api_base": "http://vllm/v1"}, None),
        ({"model": "llama-4", "api_base": "http://vllm/v1", "api_key": "sk-own"}, "Bearer sk-own"),
        ({"model": "mistral-large", "api_base": "http://gateway/v1"}, "Bearer sk-mistral"),
        ({"model": "openai/gpt-5", "api_base": "http://gateway/v1"}, "Bearer sk-openai"),
    ],
)
def test_a_key_of_the_environment_goes_to_the_provider_that_it_is_named_for(
    params: dict[str, Any], sent: str | None
) -> None:
    made = deployment(**params)
    assert made.unusable is None
    assert made.headers.get("Authorization") == sent


def test_of_several_deployments_those_that_can_be_used_serve() -> None:
    found = deployments({"model": "gemini-2.5-pro"}, {"model": "openai/gpt-5"})
    assert [one.provider for one in found.usable("m")] == ["openai"]
    assert len(found.serving("m")) == 2


def test_a_model_that_nothing_can_serve_says_what_to_write() -> None:
    with pytest.raises(ModelNotServed, match=r"'m' can't be served here: its project at Vertex AI"):
        deployments({"model": "gemini-2.5-pro"}).usable("m")
    assert deployments().usable("m") == []
