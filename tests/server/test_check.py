"""What `pollux check-config` tells: every model with its mode and why, what surprises, and no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.check import describe, warnings_about
from server.cli import main
from server.config import parse_config
from server.config.sections import ConfigError
from storage import default_directory
from tests.support.generated import moderate

DEEP = "o4-mini-deep-research"
READ = (
    "LITELLM_MASTER_KEY",
    "POLLUX_STORE",
    *("REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_USERNAME"),
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"),
    *("AZURE_API_KEY", "AZURE_API_BASE", "AZURE_API_VERSION"),
    "MYSTERY_API_KEY",
)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in READ:
        monkeypatch.delenv(name, raising=False)


def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def mode(polling: Any, native: list[str] | None = None) -> dict[str, Any]:
    section = {"polling_via_cache": polling, "native_background_mode": native}
    return {"responses": {"background_mode": section}}


def told(**sections: Any) -> str:
    return describe(parse_config(sections, environ={}))


def all_warnings(**sections: Any) -> list[str]:
    return [line for line in told(**sections).splitlines() if line.startswith("warning: ")]


def warnings(**sections: Any) -> list[str]:
    """Those about what is legal and surprises; the configs of these tests have no keys."""
    return [line for line in all_warnings(**sections) if "can't be used" not in line]


def test_a_whole_config_is_told() -> None:
    text = told(
        model_list=[
            {**entry("gpt-5.2", "openai/gpt-5.2", api_key="sk-up"), "model_info": {"id": "main"}},
            {**entry(DEEP, f"openai/{DEEP}", api_base="http://h/v1"), "model_info": {"id": "deep"}},
            {**entry("odd", "mystery/odd"), "model_info": {"id": "odd"}},
        ],
        litellm_settings={**mode(["openai"], [DEEP]), "cache_params": {"type": "redis", "password": "secret"}},
        router_settings={"model_group_alias": {"short": "gpt-5.2"}},
        general_settings={"master_key": "sk-1234"},
        pollux={"keys": [{"name": "bob", "key": "k1"}, {"name": "alice", "key": "k2"}]},
    )
    assert text == (
        "store: redis://***@127.0.0.1:6379/0\n"
        "keys: master, alice, bob\n"
        "cached responses are kept for 3600 s after their end\n"
        "composite ids: published; where LiteLLM is a client of Pollux, set pollux.composite_ids: opaque\n"
        "\n"
        "gpt-5.2\n"
        "  background: cached, because polling_via_cache lists openai\n"
        "  deployment main: openai, dialect responses, model gpt-5.2, https://api.openai.com/v1, credential set\n"
        "o4-mini-deep-research\n"
        "  background: native, because listed in native_background_mode\n"
        "  deployment deep: openai, dialect responses, model o4-mini-deep-research, http://h/v1, credential missing\n"
        "odd\n"
        "  background: native, because polling_via_cache does not list its provider (mystery)\n"
        "  deployment odd: mystery, dialect responses, model odd, no address, credential missing\n"
        "short (alias of gpt-5.2)\n"
        "  background: native, because polling_via_cache does not list its provider (none)\n"
        "  deployment main: openai, dialect responses, model gpt-5.2, https://api.openai.com/v1, credential set\n"
        "warning: model_list.2 (odd) can't be used: its provider 'mystery' has no address here: set "
        "litellm_params.api_base to an endpoint that serves the Responses API, such as a LiteLLM proxy, or one that "
        "serves Chat Completions and model_info.api to chat\n"
        "warning: short is native: aliases and wildcards don't count for a list in polling_via_cache\n"
    )


def test_opaque_ids_are_told() -> None:
    assert "composite ids: opaque, which LiteLLM as a client of Pollux leaves alone\n" in told(
        pollux={"composite_ids": "opaque"}
    )


def test_an_empty_config_is_told() -> None:
    assert told() == (
        f"store: embedded://, in {default_directory()}\n"
        "keys: none, so loopback only\n"
        "cached responses are kept for 3600 s after their end\n"
        "composite ids: published; where LiteLLM is a client of Pollux, set pollux.composite_ids: opaque\n"
        "\n"
        "models: none; add some to model_list\n"
        "warning: the file says nothing: everything has its default, and there is no model\n"
    )


def test_a_server_open_to_everybody_is_told() -> None:
    assert "keys: none, and everybody is served\n" in told(pollux={"allow_unauthenticated": True})


def test_the_environment_counts_as_the_config_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-environ")
    monkeypatch.setenv("POLLUX_STORE", "redis://:hush@h")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environ")
    text = told(model_list=[entry("gpt-5.2", "openai/gpt-5.2")])
    assert "keys: master\n" in text
    assert "store: redis://***@h\n" in text
    assert "credential set\n" in text


@pytest.mark.parametrize("polling", [True, "openai", "ALL", "true", 1, {"openai": True}])
def test_a_value_that_switches_polling_off_is_warned_of(polling: Any) -> None:
    (warning,) = warnings(model_list=[entry("m", "openai/m")], litellm_settings=mode(polling))
    assert f"polling_via_cache: {polling!r} switches it off" in warning


@pytest.mark.parametrize("polling", ["all", ["openai"], [], False, None])
def test_a_value_that_means_what_it_says_is_not_warned_of(polling: Any) -> None:
    assert warnings(model_list=[entry("m", "openai/m")], litellm_settings=mode(polling)) == []


def test_a_native_model_that_nobody_serves_is_warned_of() -> None:
    (warning,) = warnings(model_list=[entry("m", "openai/m")], litellm_settings=mode("all", ["n"]))
    assert warning == "warning: native_background_mode lists n, which no deployment serves"


def test_a_native_model_that_does_not_cover_its_prefixed_name_is_warned_of() -> None:
    entries = [entry(DEEP, f"openai/{DEEP}"), entry(f"openai/{DEEP}", f"openai/{DEEP}")]
    (warning,) = warnings(model_list=entries, litellm_settings=mode("all", [DEEP]))
    assert f"lists {DEEP}, which does not cover openai/{DEEP}" in warning


def test_a_model_whose_name_has_another_prefix_than_its_provider_is_warned_of() -> None:
    (warning,) = warnings(model_list=[entry("team/m", "openai/m")], litellm_settings=mode(["openai"]))
    assert warning == "warning: team/m is native: the part before its / is what counts for a list in polling_via_cache"


def test_a_model_that_is_meant_to_be_native_is_not_warned_of() -> None:
    entries, aliases = [entry("m", "azure/m"), entry("gpt-*", "azure/*")], {"model_group_alias": {"n": "m"}}
    assert warnings(model_list=entries, router_settings=aliases, litellm_settings=mode(["openai"])) == []
    listed = mode(["azure"], ["n", "gpt-*"])
    assert warnings(model_list=entries, router_settings=aliases, litellm_settings=listed) == []


def test_a_wildcard_is_told_as_the_models_that_it_stands_for() -> None:
    text = told(model_list=[entry("gpt-*", "openai/gpt-*")], litellm_settings=mode(["openai"]))
    assert "gpt-*\n  background: native, " in text
    text = told(model_list=[entry("openai/*", "openai/*")], litellm_settings=mode(["openai"]))
    assert "openai/*\n  background: cached, " in text


def test_a_wildcard_that_is_native_only_for_being_one_is_warned_of() -> None:
    (warning,) = warnings(model_list=[entry("*", "openai/*")], litellm_settings=mode(["openai"]))
    assert warning.startswith("warning: * is native: aliases and wildcards don't count")
    assert warnings(model_list=[entry("openai/*", "openai/*")], litellm_settings=mode(["openai"])) == []


# Secrets.

# Letters alone would be found in the text by chance.
secrets = st.text(st.sampled_from("aB3@:/?#[]%&=+ ü$"), min_size=1, max_size=12).map(lambda text: f"hu5h{text}tu5h")


@settings(moderate, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secrets)
def test_no_secret_is_told_wherever_it_stands(secret: str) -> None:
    text = told(
        model_list=[
            entry("a", "openai/a", api_key=secret, organization=secret, extra_headers={"x-key": secret}),
            entry("b", "azure/b", api_base=f"https://user:{quoted(secret)}@h/openai?sig={quoted(secret)}"),
            entry("c", "openai/c", api_base=f"https://h/v1?key={quoted(secret)}", password=secret),
        ],
        litellm_settings={"cache_params": {"type": "redis", "password": secret, "host": "h"}},
        general_settings={"master_key": secret},
        pollux={"keys": [{"name": "a", "key": secret}], "id_secrets": [secret]},
    )
    assert "hu5h" not in text
    assert "tu5h" not in text


def quoted(secret: str) -> str:
    """As careless people do: only what would end the authority."""
    return secret.replace("/", "%2F").replace("?", "%3F").replace("#", "%23").replace("[", "%5B").replace("]", "%5D")


@settings(moderate, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secrets, st.sampled_from(["redis", "rediss", "unix"]))
def test_no_secret_in_the_address_of_the_store_is_told(secret: str, scheme: str) -> None:
    for url in (
        f"{scheme}://:{secret}@host:1/0",
        f"{scheme}://user:{secret}@host",
        f"{scheme}://host/0?password={secret}",
    ):
        text = told(pollux={"store": url})
        assert "hu5h" not in text
        assert "tu5h" not in text
        assert f"store: {scheme}://" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("embedded://", f"embedded://, in {default_directory()}"),
        ("embedded:///var/lib/pollux", "embedded:///var/lib/pollux"),
        ("redis://host:6379/2", "redis://host:6379/2"),
        ("redis://:p@host:6379/2", "redis://***@host:6379/2"),
        ("redis://u:p@ss@host", "redis://***@host"),
        ("redis://u:p?s@host", "redis://***@…"),
        ("redis://u:p@s?s@host", "redis://***@…"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_the_address_of_the_store_stays_recognisable(url: str, shown: str) -> None:
    assert told(pollux={"store": url}).startswith(f"store: {shown}\n")


@pytest.mark.parametrize(
    ("made", "warning"),
    [
        (entry("m", "openai/m"), "it has no key: set litellm_params.api_key, or OPENAI_API_KEY"),
        (entry("m", "sagemaker/m"), "its provider 'sagemaker' speaks Amazon's own API, which is not spoken here"),
        (entry("m", "azure/m", api_key="k"), "set litellm_params.api_base, or AZURE_API_BASE, to"),
        (entry("m", "homemade", api_key="k"), "no provider is known for litellm_params.model 'homemade': write it as"),
        (entry("m", "openai/m", api_key="os.environ/GONE"), "the environment variable GONE is not set"),
        (entry("m", "openai/m", api_key="k", ssl_verify="/no/such/file"), "is no readable file of certificates"),
    ],
)
def test_what_can_not_be_served_is_a_warning_that_says_what_to_write(made: dict[str, Any], warning: str) -> None:
    (found,) = all_warnings(model_list=[made])
    assert found.startswith("warning: model_list.0 (m) can't be used: ")
    assert warning in found


def test_switched_off_certificates_are_warned_of() -> None:
    (found,) = all_warnings(litellm_settings={"ssl_verify": False})
    assert "anybody on the way can read what is sent" in found


@pytest.mark.parametrize(("text", "strict", "code"), [("", True, 1), ("", False, 0), ("router_settings: {}", True, 0)])
def test_strict_makes_warnings_an_error(
    text: str, strict: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert main(["check-config", str(file), *(["--strict"] if strict else [])]) == code
    assert ("warning: " in capsys.readouterr().out) == (text == "")


WEBHOOK = {"url": "https://example.com/", "secret": "whsec_c2VjcmV0IG9mIHRoZSBleGFtcGxlIDEyMzQ1Njc4OTA="}


def test_webhooks_of_keys_that_there_are_not_are_told() -> None:
    config = parse_config({"pollux": {"webhooks": [WEBHOOK, {**WEBHOOK, "keys": ["nobody", "master"]}]}}, environ={})
    assert "webhooks: 2 of the config" in describe(config)
    assert [warning for warning in warnings_about(config) if "webhooks" in warning] == [
        "pollux.webhooks[1].keys lists nobody, and there is no key of that name"
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "http://example.com/"}, r"pollux\.webhooks\[0\]\.url can't be used: it must begin with https://"),
        ({"secret": "whsec_1"}, r"pollux\.webhooks\.0\.secret: .*must be whsec_ and the base64"),
        ({"events": ["response.queued"]}, r"pollux\.webhooks\.0\.events\.0"),
    ],
)
def test_a_webhook_that_can_not_work_is_a_mistake(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        describe(parse_config({"pollux": {"webhooks": [{**WEBHOOK, **changes}]}}, environ={}))


def test_a_model_that_is_left_to_a_background_that_its_provider_lacks_is_a_warning() -> None:
    made = entry("m", "anthropic/claude-x", api_key="k")
    (found,) = all_warnings(model_list=[made])
    assert "m is native, and its provider 'anthropic' has no background mode" in found
    cached = {"responses": {"background_mode": {"polling_via_cache": "all"}}}
    assert all_warnings(model_list=[made], litellm_settings=cached) == []
    (found,) = all_warnings(model_list=[{**made, "model_info": {"upstream_background": True}}], litellm_settings=cached)
    assert "model_list.0.model_info.upstream_background has no effect" in found


def test_a_price_of_a_model_that_there_is_not_is_warned_of() -> None:
    price = {"input": 1, "output": 2}
    models = [entry("a", "openai/a", api_key="k"), entry("b/*", "openai/*", api_key="k")]
    prices = {"a": price, "b/*": price, "b/1": price}
    config = parse_config({"model_list": models, "pollux": {"prices": prices}}, environ={})
    [warning] = [text for text in warnings_about(config) if "prices" in text]
    assert warning == "pollux.prices has b/1, and no entry of model_list has this model_name"


def test_a_credential_that_is_no_key_is_told() -> None:
    application = {"tenant_id": "t-1", "client_id": "c-1", "client_secret": "very-secret"}
    text = told(model_list=[entry("m", "azure/gpt", api_base="https://h", **application)])
    assert "credential by Microsoft Entra ID, client c-1 of tenant t-1\n" in text
    assert "very-secret" not in text


def test_what_is_odd_about_keys_of_clients_is_told() -> None:
    def warned(accept: bool, *entries: dict[str, Any], **pollux: Any) -> str:
        config = {"model_list": list(entries), "pollux": {"accept_any_key": accept, **pollux}}
        return "\n".join(warnings_about(parse_config(config, environ={})))

    shut = entry("shut", "openai/m", api_key="k")
    forwards = entry("open", "litellm_proxy/m", api_base="http://h") | {"model_info": {"forward_client_key": True}}
    kept = "keys of clients are kept encrypted while a cached response runs"
    assert "accept_any_key is of no use" in warned(True, shut)
    told = warned(True, shut, forwards)
    assert "shut has deployments without forward_client_key: they serve keys of the config only" in told
    assert "open has deployments" not in told
    assert kept in told
    assert warned(True, forwards, id_secrets=["s"]) == ""
    assert kept not in warned(False, shut)
    both = forwards | {"model_info": {"forward_client_key": True, "upstream_background": True}}
    assert "open: upstream_background has no effect together with forward_client_key" in warned(False, both)
    misplaced = entry("open", "litellm_proxy/m", api_base="http://h", forward_client_key=True)
    assert "litellm_params.forward_client_key is taken for a field of requests: write it in model_info" in warned(
        False, misplaced
    )


def test_whose_keys_are_served_and_sent_is_told() -> None:
    forwards = entry("open", "litellm_proxy/m", api_base="http://h") | {"model_info": {"forward_client_key": True}}
    told = describe(parse_config({"model_list": [forwards], "pollux": {"accept_any_key": True}}, environ={}))
    assert "keys: any other, of which providers decide" in told
    assert "credential the client's key; for the master key none" in told


MODELS = [entry(name, f"openai/{name}", api_key="k") for name in ("a", "b", "c")]


def test_what_follows_on_each_model_is_told() -> None:
    lists = {"fallbacks": [{"a": ["b", "c"]}], "context_window_fallbacks": [{"a": ["c"]}], "default_fallbacks": ["c"]}
    text = told(model_list=MODELS, router_settings=lists)
    blocks = {block.split("\n")[0]: block for block in text.replace("\n  ", "\0").split("\n") if "\0" in block}
    lines = {name.split("\0")[0]: block.split("\0")[3:] for name, block in blocks.items()}
    assert lines == {
        "a": ["fallbacks: b, c", "context_window_fallbacks: c"],
        "b": ["fallbacks: c", "context_window_fallbacks: none"],
        "c": [],
    }
    assert "warning" not in text


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"fallbacks": [{"a": ["x"]}]}, "fallbacks of a lists x, which no deployment serves"),
        ({"default_fallbacks": ["x"]}, "fallbacks of * lists x, which no deployment serves"),
        ({"fallbacks": [{"x": ["a"]}]}, "fallbacks has a list for x, which no deployment serves"),
        (
            {"content_policy_fallbacks": [{"*": ["a"]}]},
            "content_policy_fallbacks has a list for *, which no deployment",
        ),
        ({"fallbacks": [{"a": ["a"]}]}, "fallbacks lead in a circle: a -> a; no request asks a model twice"),
        (
            {"context_window_fallbacks": [{"a": ["b"]}, {"b": ["c"]}, {"c": ["b"]}]},
            "context_window_fallbacks lead in a circle: b -> c -> b; no request asks a model twice",
        ),
        (
            {"fallbacks": [{"a": [{"model": "b", "temperature": 0}]}]},
            "fallbacks change fields of the request, which has",
        ),
    ],
)
def test_fallbacks_that_lead_nowhere_are_warned_of(lists: dict[str, Any], expected: str) -> None:
    for section in ("router_settings", "litellm_settings"):
        [warning] = all_warnings(model_list=MODELS, **{section: lists})
        assert warning.startswith(f"warning: {expected}")


@pytest.mark.parametrize(
    "lists",
    [
        {"fallbacks": [{"a": ["b"]}, {"openai/b": ["c"]}], "default_fallbacks": ["b", "c"], "max_fallbacks": 2},
        {"fallbacks": [{"a": ["b", "c"]}, {"b": ["c"]}], "content_policy_fallbacks": [{"c": ["a"]}]},
    ],
)
def test_other_fallbacks_are_not(lists: dict[str, Any]) -> None:
    assert all_warnings(model_list=MODELS, router_settings=lists) == []


def test_fallbacks_where_a_key_may_not_go_are_warned_of() -> None:
    sections: dict[str, Any] = {
        "model_list": MODELS,
        "router_settings": {"fallbacks": [{"a": ["b"]}, {"b": ["c"]}]},
        "pollux": {"keys": [{"name": "alice", "key": "k1", "models": ["a", "b"]}, {"name": "bob", "key": "k2"}]},
    }
    [warning] = all_warnings(**sections)
    assert warning.startswith("warning: requests with the key of alice never fall back to c: add that to its models")
    assert all_warnings(**sections, general_settings={"enforce_fallback_model_access": False}) == []
