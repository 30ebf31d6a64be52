"""Deployments: which one serves a name, at which address, and by which id it is found again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from server.config import load_config, parse_config
from server.upstream.deployments import Deployment, Deployments


def registry(*entries: dict[str, Any], environ: dict[str, str] | None = None, **sections: Any) -> Deployments:
    given = environ or {}
    return Deployments(parse_config({"model_list": list(entries), **sections}, environ=given), environ=given)


def entry(name: str, model: str, model_id: str | None = None, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}, "model_info": {"id": model_id}}


def deployment(model: str = "openai/m", environ: dict[str, str] | None = None, **params: Any) -> Deployment:
    (made,) = registry(entry("public", model, **params), environ=environ).all
    return made


def ids(deployments: list[Deployment]) -> list[str]:
    return [deployment.id for deployment in deployments]


# Who serves a name.


def test_all_deployments_of_a_name_serve_it() -> None:
    found = registry(entry("a", "openai/a", "1"), entry("b", "openai/b", "2"), entry("a", "azure/a", "3"))
    assert ids(found.serving("a")) == ["1", "3"]
    assert ids(found.serving("b")) == ["2"]
    assert found.serving("c") == []
    assert found.model_names == ["a", "b"]


def test_a_wildcard_serves_what_it_matches() -> None:
    found = registry(entry("openai/*", "openai/*", "1"), entry("gpt-*-mini", "openai/gpt-*-mini", "2"))
    assert ids(found.serving("openai/gpt-5")) == ["1"]
    assert ids(found.serving("openai/")) == ["1"]
    assert ids(found.serving("gpt-5-mini")) == ["2"]
    assert found.serving("gpt-5") == []
    assert found.serving("gpt-mini") == []
    assert found.serving("xopenai/gpt-5") == []


def test_the_most_specific_wildcard_wins_and_an_exact_name_before_all() -> None:
    found = registry(
        entry("*", "openai/*", "any"),
        entry("openai/*", "openai/*", "openai"),
        entry("openai/gpt-*", "openai/gpt-*", "gpt"),
        entry("openai/gpt-5", "openai/gpt-5", "exact"),
    )
    assert [ids(found.serving(name))[0] for name in ("x", "openai/x", "openai/gpt-4", "openai/gpt-5")] == [
        "any",
        "openai",
        "gpt",
        "exact",
    ]


def test_signs_of_regular_expressions_mean_nothing() -> None:
    found = registry(entry("a.b*", "openai/*", "1"))
    assert ids(found.serving("a.bc")) == ["1"]
    assert found.serving("axbc") == []


def test_an_alias_leads_to_its_model_as_text_or_mapping() -> None:
    aliases = {
        "short": "a",
        "hidden": {"model": "a", "hidden": True},
        "wild": "openai/x",
        "a": "b",
        "odd": 5,
        "lost": "z",
    }
    found = registry(
        entry("a", "openai/a", "1"),
        entry("openai/*", "openai/*", "2"),
        router_settings={"model_group_alias": aliases},
    )
    assert ids(found.serving("short")) == ids(found.serving("hidden")) == ["1"]
    assert ids(found.serving("wild")) == ["2"]
    assert ids(found.serving("a")) == ["1"], "a model goes before an alias of the same name"
    assert found.serving("odd") == found.serving("lost") == []
    assert (found.canonical("short"), found.canonical("a"), found.canonical("nobody")) == ("a", "a", "nobody")
    assert found.model_names == ["a", "openai/*", "short", "hidden", "wild", "lost"]


@pytest.mark.parametrize(
    ("name", "model", "requested", "expected"),
    [
        ("public", "openai/gpt-5", "public", "gpt-5"),
        ("openai/*", "openai/*", "openai/gpt-5", "gpt-5"),
        ("openai/*", "openai/*", "openai/ft:gpt-5/x", "ft:gpt-5/x"),
        ("gpt-*", "openai/gpt-*", "gpt-5", "gpt-5"),
        ("mine-*", "azure/theirs-*-eu", "mine-5", "theirs-5-eu"),
        ("*", "openai/*", "gpt-5", "gpt-5"),
        ("openai/*", "openai/gpt-5", "openai/whatever", "gpt-5"),
    ],
)
def test_the_upstream_gets_its_own_name_of_the_model(name: str, model: str, requested: str, expected: str) -> None:
    (made,) = registry(entry(name, model)).serving(requested)
    assert made.model_for(requested) == expected


# Providers.


@pytest.mark.parametrize(
    ("model", "custom", "provider", "listed", "upstream_model"),
    [
        ("openai/gpt-5", None, "openai", "openai", "gpt-5"),
        ("azure/gpt-5", None, "azure", "azure", "gpt-5"),
        ("gpt-5", None, "openai", None, "gpt-5"),
        ("gpt-5", "azure", "azure", "azure", "gpt-5"),
        ("openai/gpt-5", "openai", "openai", "openai", "gpt-5"),
        ("meta-llama/llama-4", "hosted_vllm", "hosted_vllm", "hosted_vllm", "meta-llama/llama-4"),
        ("openrouter/openai/gpt-5", None, "openrouter", "openrouter", "openai/gpt-5"),
    ],
)
def test_the_provider_and_its_prefix(
    model: str, custom: str | None, provider: str, listed: str | None, upstream_model: str
) -> None:
    made = deployment(model, custom_llm_provider=custom)
    assert (made.provider, made.listed_provider, made.upstream_model) == (provider, listed, upstream_model)


def test_providers_of_a_name_are_those_of_its_own_deployments() -> None:
    found = registry(
        entry("a", "azure/a"),
        entry("a", "plain"),
        entry("a*", "openai/a*"),
        router_settings={"model_group_alias": {"alias": "a"}},
    )
    assert list(found.providers_of("a")) == ["azure", None]
    assert list(found.providers_of("alias")) == list(found.providers_of("ab")) == []


# Addresses.


@pytest.mark.parametrize(
    ("model", "params", "environ", "url"),
    [
        ("openai/m", {}, {}, "https://api.openai.com/v1/responses"),
        ("gpt-5.2", {}, {}, "https://api.openai.com/v1/responses"),
        ("openai/m", {}, {"OPENAI_BASE_URL": "http://h/v1"}, "http://h/v1/responses"),
        ("openai/m", {}, {"OPENAI_API_BASE": "http://h/v1"}, "http://h/v1/responses"),
        ("openai/m", {}, {"OPENAI_BASE_URL": ""}, "https://api.openai.com/v1/responses"),
        ("openai/m", {"api_base": "http://h:1/v1"}, {"OPENAI_BASE_URL": "http://x"}, "http://h:1/v1/responses"),
        ("openai/m", {"api_base": "http://h/v1/"}, {}, "http://h/v1/responses"),
        ("openai/m", {"api_base": "http://h/v1/responses"}, {}, "http://h/v1/responses"),
        ("openai/m", {"api_base": "http://h/v1/responses/"}, {}, "http://h/v1/responses"),
        ("openai/m", {"api_base": "http://h"}, {}, "http://h/responses"),
        ("openai/m", {"api_base": "http://h/v1?tenant=a"}, {}, "http://h/v1/responses?tenant=a"),
        ("xai/m", {}, {}, "https://api.x.ai/v1/responses"),
        ("hosted_vllm/m", {"api_base": "http://vllm:8000/v1"}, {}, "http://vllm:8000/v1/responses"),
    ],
)
def test_the_address_of_a_deployment(model: str, params: dict[str, Any], environ: dict[str, str], url: str) -> None:
    assert deployment(model, environ, **params).url() == url


RESOURCE, DATED = "https://res.openai.azure.com", "2025-04-01-preview"
NEW = f"{RESOURCE}/openai/v1/responses"
OLD = f"{RESOURCE}/openai/responses"


@pytest.mark.parametrize(
    ("base", "version", "url"),
    [
        (RESOURCE, None, f"{NEW}?api-version=preview"),
        (f"{RESOURCE}/", None, f"{NEW}?api-version=preview"),
        (RESOURCE, "preview", f"{NEW}?api-version=preview"),
        (RESOURCE, "latest", f"{NEW}?api-version=latest"),
        (RESOURCE, DATED, f"{OLD}?api-version={DATED}"),
        (f"{RESOURCE}/openai", None, f"{NEW}?api-version=preview"),
        (f"{RESOURCE}/openai/", DATED, f"{OLD}?api-version={DATED}"),
        (f"{RESOURCE}/openai/v1", None, f"{NEW}?api-version=preview"),
        (f"{RESOURCE}/openai/v1/", "preview", f"{NEW}?api-version=preview"),
        (f"{RESOURCE}/openai/v1/responses", None, f"{NEW}?api-version=preview"),
        (f"{RESOURCE}/openai/responses", DATED, f"{OLD}?api-version={DATED}"),
        (f"{RESOURCE}/openai/responses?api-version={DATED}", None, f"{OLD}?api-version={DATED}"),
        (f"{RESOURCE}/openai/responses?api-version={DATED}", DATED, f"{OLD}?api-version={DATED}"),
        (f"{RESOURCE}/openai/responses?api-version={DATED}", "preview", f"{OLD}?api-version={DATED}"),
        (f"{RESOURCE}/openai/responses?api-version=preview", DATED, f"{NEW}?api-version=preview"),
        (f"{RESOURCE}/openai/v1/responses?api-version=preview", None, f"{NEW}?api-version=preview"),
        (f"{RESOURCE}?tenant=a", DATED, f"{OLD}?tenant=a&api-version={DATED}"),
    ],
)
def test_the_forms_of_an_azure_address(base: str, version: str | None, url: str) -> None:
    assert deployment("azure/m", api_base=base, api_version=version).url() == url


def test_azure_reads_its_environment() -> None:
    environ = {"AZURE_API_BASE": RESOURCE, "AZURE_API_VERSION": DATED, "AZURE_API_KEY": "k"}
    made = deployment("azure/m", environ)
    assert made.url() == f"{OLD}?api-version={DATED}"
    assert made.headers == {"api-key": "k"}


def test_a_provider_without_known_address_has_none() -> None:
    assert deployment("mystery/m").base_url is None
    assert deployment("azure/m").base_url is None


@pytest.mark.parametrize("part", ["a/b", "../x", "a?b#c", "a%2Fb", "a b", "é", "a\r\nb", "http://evil/"])
def test_no_part_of_a_path_can_leave_its_segment(part: str) -> None:
    url = deployment(api_base="http://h/v1").url(part, "cancel", query="limit=5")
    head, _, tail = url.removeprefix("http://h/v1/responses/").partition("/")
    assert tail == "cancel?limit=5"
    assert not set(head) & set("/?# \r\n")
    assert head.isascii()


def test_the_query_of_a_deployment_and_of_an_operation_are_joined() -> None:
    made = deployment("azure/m", api_base=RESOURCE)
    assert made.url("resp_1", query="stream=true") == f"{NEW}/resp_1?api-version=preview&stream=true"


# Credentials and times.


def test_the_credential_is_that_of_the_deployment_or_else_of_the_environment() -> None:
    environ = {"OPENAI_API_KEY": "sk-environ", "HOSTED_VLLM_API_KEY": "sk-vllm"}
    assert deployment(api_key="sk-own", environ=environ).headers == {"Authorization": "Bearer sk-own"}
    assert deployment(environ=environ).headers == {"Authorization": "Bearer sk-environ"}
    assert deployment("hosted_vllm/m", environ).headers == {"Authorization": "Bearer sk-vllm"}
    assert deployment("other/m", environ).headers == {}


def test_further_headers_are_sent_but_do_not_replace_the_credential() -> None:
    made = deployment(api_key="k", organization="org", extra_headers={"X-Team": "a", "Authorization": "mine"})
    assert made.headers == {"X-Team": "a", "Authorization": "Bearer k", "OpenAI-Organization": "org"}


def test_a_printed_deployment_shows_no_credential() -> None:
    assert "hush" not in repr(deployment(api_key="hush"))


@pytest.mark.parametrize(
    ("params", "general", "router", "timeout_s", "stream_timeout_s"),
    [
        ({}, {}, {}, 600, None),
        ({"timeout": 5}, {"request_timeout": 30}, {"timeout": 40}, 5, 5),
        ({"request_timeout": 6}, {"request_timeout": 30}, {}, 6, 6),
        ({}, {"request_timeout": 30}, {"timeout": 40}, 30, 30),
        ({}, {}, {"timeout": 40}, 40, 40),
        ({"stream_timeout": 7, "timeout": 5}, {}, {"stream_timeout": 8}, 5, 7),
        ({"timeout": 5}, {}, {"stream_timeout": 8}, 5, 8),
        ({}, {"request_timeout": 30}, {"stream_timeout": 8}, 30, 8),
    ],
)
def test_timeouts_have_litellms_order_of_precedence(
    params: dict[str, Any],
    general: dict[str, Any],
    router: dict[str, Any],
    timeout_s: float,
    stream_timeout_s: float | None,
) -> None:
    (made,) = registry(entry("a", "openai/a", **params), litellm_settings=general, router_settings=router).all
    assert (made.timeout_s, made.stream_timeout_s) == (timeout_s, stream_timeout_s)


def test_our_own_limit_of_streams_goes_before_a_general_one_of_all_answers() -> None:
    one, other = registry(
        entry("a", "openai/a"),
        entry("b", "openai/b", timeout=5),
        litellm_settings={"request_timeout": 30},
        pollux={"first_byte_timeout_s": 10},
    ).all
    assert (one.timeout_s, one.stream_timeout_s, other.stream_timeout_s) == (30, None, 5)


def test_a_deployment_has_its_own_retries_and_cooldown() -> None:
    made = deployment(num_retries=0, cooldown_time=60)
    assert (made.num_retries, made.cooldown_s) == (0, 60)
    assert (deployment().num_retries, deployment().cooldown_s) == (None, None)
    about = {**entry("a", "openai/a", cooldown_time=60), "model_info": {"cooldown_time": 30}}
    assert registry(about).all[0].cooldown_s == 30


def test_parameters_that_are_fields_of_a_request_are_its_defaults() -> None:
    made = deployment(temperature=0.2, max_tokens=5, stop="\n\n", rpm=5, extra_body={"min_p": 0.1}, drop_params=True)
    assert made.defaults == {"temperature": 0.2, "max_output_tokens": 5, "stop": "\n\n"}
    assert made.extra_body == {"min_p": 0.1}
    assert deployment(api_key="k").defaults == deployment().extra_body == {}
    with pytest.raises(TypeError):
        made.defaults["temperature"] = 1  # type: ignore[index]


def test_responses_go_on_only_within_one_account() -> None:
    one, same, other = registry(
        entry("a", "openai/a", api_key="k"), entry("b", "openai/b", api_key="k"), entry("a", "openai/a", api_key="l")
    ).all
    assert one.same_account(same)
    assert not one.same_account(other)


# Ids.


def test_an_id_outlives_a_new_key_and_a_restart() -> None:
    before, after = deployment(api_key="old", timeout=5), deployment(api_key="new", api_version="x")
    assert before.id == after.id
    assert len(before.id) == 64


@pytest.mark.parametrize("params", [{"api_base": "http://h/v1"}, {"custom_llm_provider": "xai"}])
def test_another_endpoint_has_another_id(params: dict[str, Any]) -> None:
    assert deployment(**params).id != deployment().id
    assert deployment("openai/n").id != deployment("openai/m").id
    assert registry(entry("other", "openai/m")).all[0].id != deployment().id


def test_a_given_id_goes_before_the_hash() -> None:
    found = registry(entry("a", "openai/a", "mine"))
    assert found.get("mine") is found.all[0]


def test_two_accounts_at_one_endpoint_have_ids_of_their_own() -> None:
    """A response is known only to the account that made it: one id for both would lose every second one."""
    keys = ("first", "second", "third")
    found = registry(*(entry("a", "openai/a", api_key=key) for key in keys))
    assert len(set(ids(found.all))) == 3
    assert [found.get(made.id) for made in found.all] == found.all
    rotated = registry(*(entry("a", "openai/a", api_key=f"new {key}") for key in keys))
    assert ids(rotated.all) == ids(found.all)
    assert found.all[0].id == registry(entry("a", "openai/a")).all[0].id


def test_an_unknown_id_names_no_deployment() -> None:
    found = registry(entry("a", "openai/a"))
    for unknown in ("", "a", "https://evil.example", "0" * 64):
        assert found.get(unknown) is None


def litellms_id(model_name: str, params: dict[str, Any]) -> str:
    """As LiteLLM's router makes it: `Router._generate_model_id`."""
    parts = [model_name]
    for key, value in params.items():
        parts.append(key)
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, dict):
            parts.append(json.dumps(value))
        else:
            parts.append(str(value))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


LEGACY = """
model_list:
  - model_name: gpt-5.2
    litellm_params:
      temperature: 0.5
      model: openai/gpt-5.2
      api_key: os.environ/LEGACY_KEY
      extra_headers: {b: "1", a: ä}
      rpm: 100
      drop_params: true
      tags: [x, 'y']
      api_base:
      unheard_of: {nested: [1, null]}
"""


def test_a_deployment_answers_to_the_id_that_litellm_gave_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(LEGACY, encoding="utf-8")
    found = Deployments(load_config(file, {"LEGACY_KEY": "sk-resolved"}), environ={})
    in_file_order = {
        "temperature": 0.5,
        "model": "openai/gpt-5.2",
        "api_key": "sk-resolved",
        "extra_headers": {"b": "1", "a": "ä"},
        "rpm": 100,
        "drop_params": True,
        "tags": ["x", "y"],
        "api_base": None,
        "unheard_of": {"nested": [1, None]},
    }
    legacy = litellms_id("gpt-5.2", in_file_order)
    assert found.get(legacy) is found.all[0]
    assert found.all[0].id != legacy
    resorted = litellms_id("gpt-5.2", dict(sorted(in_file_order.items())))
    assert found.get(resorted) is None


def test_an_id_of_ours_goes_before_one_of_litellms() -> None:
    old = {"model": "openai/a", "api_key": "k"}
    found = registry(entry("a", **old), entry("b", "openai/b", litellms_id("a", old)))
    assert found.get(litellms_id("a", old)) is found.all[1]
