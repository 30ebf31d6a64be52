"""The decision between the three modes: the original's tests by name, and what they leave open."""

from __future__ import annotations

from typing import Any

import pytest

from server.config import parse_config
from server.protocol.routing import BackgroundMode, Decision, Mode, decide
from server.upstream.deployments import Deployments

DEEP = "o4-mini-deep-research"


def mode_of(
    model: str,
    polling: Any,
    native: list[str] | None = None,
    *,
    background: bool = True,
    providers: dict[str, list[str | None]] | None = None,
) -> Mode:
    """The mode under these settings; `providers` are those of the deployments of each model name."""
    return decide(
        model,
        background=background,
        settings=BackgroundMode(polling, tuple(native or ())),
        providers_of=lambda name: (providers or {}).get(name, []),
    ).mode


def configured(model: str, entries: list[dict[str, Any]], polling: Any, **sections: Any) -> Decision:
    """The decision by a whole config."""
    config = parse_config(
        {
            "model_list": entries,
            "litellm_settings": {"responses": {"background_mode": {"polling_via_cache": polling}}},
            **sections,
        },
        environ={},
    )
    deployments = Deployments(config, environ={})
    return decide(model, background=True, settings=config.background_mode, providers_of=deployments.providers_of)


def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


# The original's tests, by their names.


def test_polling_disabled_when_model_in_native_background_mode() -> None:
    assert mode_of(DEEP, "all", [DEEP]) is Mode.NATIVE


def test_polling_disabled_for_native_background_mode_with_provider_list() -> None:
    providers: dict[str, list[str | None]] = {DEEP: ["openai"]}
    assert mode_of(DEEP, ["openai"], [DEEP], providers=providers) is Mode.NATIVE


def test_polling_enabled_when_model_not_in_native_background_mode() -> None:
    assert mode_of("gpt-5.2", "all", [DEEP]) is Mode.CACHED


def test_polling_enabled_when_native_background_mode_is_none() -> None:
    config = parse_config(
        {
            "litellm_settings": {
                "responses": {"background_mode": {"polling_via_cache": "all", "native_background_mode": None}}
            }
        },
        environ={},
    )
    made = decide(DEEP, background=True, settings=config.background_mode, providers_of=lambda _: [])
    assert made.mode is Mode.CACHED


def test_polling_enabled_when_native_background_mode_is_empty_list() -> None:
    assert mode_of(DEEP, "all", []) is Mode.CACHED


def test_native_background_mode_exact_match_required() -> None:
    assert mode_of(f"openai/{DEEP}", "all", [DEEP]) is Mode.CACHED
    assert mode_of(f"{DEEP}-2025-06-26", "all", [DEEP]) is Mode.CACHED
    assert mode_of(DEEP.upper(), "all", [DEEP]) is Mode.CACHED


def test_native_background_mode_with_provider_prefix_in_request() -> None:
    assert mode_of(f"openai/{DEEP}", ["openai"], [f"openai/{DEEP}"]) is Mode.NATIVE
    assert mode_of(DEEP, "all", [f"openai/{DEEP}"]) is Mode.CACHED


def test_native_background_mode_with_router_lookup() -> None:
    providers: dict[str, list[str | None]] = {"my-deep": ["openai"], "my-fast": ["openai"]}
    assert mode_of("my-deep", ["openai"], ["my-deep"], providers=providers) is Mode.NATIVE
    assert mode_of("my-fast", ["openai"], ["my-deep"], providers=providers) is Mode.CACHED


# What they leave open.


@pytest.mark.parametrize("polling", ["all", ["openai"], False, None])
@pytest.mark.parametrize("native", [[], ["openai/gpt-5.2"]])
def test_without_background_every_model_is_proxied(polling: Any, native: list[str]) -> None:
    assert mode_of("openai/gpt-5.2", polling, native, background=False) is Mode.PROXIED


@pytest.mark.parametrize("polling", [True, False, None, "openai", "ALL", "", 1, {"openai": True}, ("openai",)])
def test_anything_but_all_or_a_list_leaves_background_to_the_provider(polling: Any) -> None:
    assert mode_of("openai/gpt-5.2", polling, providers={"openai/gpt-5.2": ["openai"]}) is Mode.NATIVE


def test_missing_background_settings_leave_background_to_the_provider() -> None:
    config = parse_config({"model_list": [entry("gpt-5.2", "openai/gpt-5.2")]}, environ={})
    made = decide("gpt-5.2", background=True, settings=config.background_mode, providers_of=lambda _: ["openai"])
    assert made.mode is Mode.NATIVE


def test_azure_is_not_openai() -> None:
    assert mode_of("azure/gpt-5.2", ["openai"]) is Mode.NATIVE
    assert configured("gpt-5.2", [entry("gpt-5.2", "azure/gpt-5.2")], ["openai"]).mode is Mode.NATIVE
    assert configured("gpt-5.2", [entry("gpt-5.2", "azure/gpt-5.2")], ["azure"]).mode is Mode.CACHED


def test_with_a_prefix_in_the_request_nothing_else_is_looked_at() -> None:
    providers: dict[str, list[str | None]] = {"anthropic/claude": ["openai"]}
    assert mode_of("anthropic/claude", ["openai"], providers=providers) is Mode.NATIVE
    assert mode_of("openai/unknown/model", ["openai"]) is Mode.CACHED
    assert mode_of("/gpt-5.2", ["openai"], providers={"/gpt-5.2": ["openai"]}) is Mode.NATIVE


def test_one_of_several_deployments_is_enough() -> None:
    entries = [entry("gpt-5.2", "azure/gpt-5.2"), entry("gpt-5.2", "openai/gpt-5.2")]
    assert configured("gpt-5.2", entries, ["openai"]) == (Mode.CACHED, "polling_via_cache lists openai")


def test_custom_llm_provider_wins_over_the_prefix_of_the_deployment() -> None:
    entries = [entry("mine", "openai/gpt-5.2", custom_llm_provider="hosted_vllm")]
    assert configured("mine", entries, ["hosted_vllm"]).mode is Mode.CACHED
    assert configured("mine", entries, ["openai"]).mode is Mode.NATIVE


def test_a_deployment_that_names_no_provider_has_none() -> None:
    decision = configured("gpt-5.2", [entry("gpt-5.2", "gpt-5.2")], ["openai"])
    assert decision.mode is Mode.NATIVE
    assert "none" in decision.why


def test_an_unknown_model_has_no_provider() -> None:
    assert configured("nobody", [], ["openai"]).mode is Mode.NATIVE


def test_aliases_do_not_count_for_a_list_of_providers() -> None:
    entries, aliases = [entry("gpt-5.2", "openai/gpt-5.2")], {"model_group_alias": {"short": "gpt-5.2"}}
    assert configured("short", entries, ["openai"], router_settings=aliases).mode is Mode.NATIVE
    assert configured("short", entries, "all", router_settings=aliases).mode is Mode.CACHED


def test_wildcards_do_not_count_for_a_list_of_providers() -> None:
    entries = [entry("gpt-*", "openai/gpt-*")]
    assert configured("gpt-5.2", entries, ["openai"]).mode is Mode.NATIVE
    assert configured("gpt-5.2", entries, "all").mode is Mode.CACHED
    assert configured("openai/gpt-5.2", [entry("openai/*", "openai/*")], ["openai"]).mode is Mode.CACHED


def test_every_decision_says_why() -> None:
    settings = BackgroundMode(["openai"], (DEEP,))
    for model, background in ((DEEP, True), (DEEP, False), ("openai/a", True), ("azure/a", True)):
        made = decide(model, background=background, settings=settings, providers_of=lambda _: [])
        assert made.why
