"""The config: LiteLLM's file as it is, our section strictly, and errors that name the dotted path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from server.config import Config, load_config, parse_config
from server.config.sections import ConfigError
from server.config.unused import keys_without_effect, told_in_one
from server.keyhash import HashedKey

ENTRY = {"model_name": "gpt-5.2", "litellm_params": {"model": "openai/gpt-5.2"}}

# As in LiteLLM's own documentation: what a user of its proxy has.
LITELLMS = """
model_list:
  - model_name: gpt-5.2
    litellm_params:
      model: openai/gpt-5.2
      api_key: os.environ/OPENAI_API_KEY
      rpm: 100
      tpm: 100000
      max_parallel_requests: 10
    model_info:
      mode: responses
  - model_name: azure-gpt
    litellm_params: {model: azure/gpt, api_base: https://res.openai.azure.com, api_version: "2025-04-01-preview"}
litellm_settings:
  cache: true
  cache_params: {type: redis, ttl: 3600, host: 127.0.0.1, port: 6379}
  drop_params: true
  callbacks: ["prometheus"]
  responses:
    background_mode:
      polling_via_cache: ["openai"]
      native_background_mode: ["o4-mini-deep-research"]
      ttl: 1800
router_settings:
  routing_strategy: simple-shuffle
  model_group_alias: {short: gpt-5.2, hidden: {model: azure-gpt, hidden: true}}
general_settings:
  master_key: sk-1234
  database_url: os.environ/DATABASE_URL
environment_variables:
  SOMETHING: else
"""


def config_of(environ: dict[str, str] | None = None, **sections: Any) -> Config:
    return parse_config(sections, environ=environ or {})


def store_of(environ: dict[str, str] | None = None, **sections: Any) -> str:
    return config_of(environ, **sections).store_url(environ or {})


def cache(**params: Any) -> dict[str, Any]:
    return {"cache_params": {"type": "redis", **params}}


def refusal(environ: dict[str, str] | None = None, **sections: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        config_of(environ, **sections)
    return str(refused.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


# LiteLLM's file.


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"model_list": [{"model_name": "\ud83d"}]}, "model_list.0.model_name"),
        ({"pollux": {"prices": {"\ude00": {}}}}, "pollux.prices.?"),
        ({"general_settings": {"master_key": "os.environ/BYTES"}}, "general_settings.master_key"),
        ({"general_settings": {"master_key": "os.environ/\ud83d"}}, "general_settings.master_key"),
    ],
)
def test_a_text_that_is_not_unicode_is_refused(sections: dict[str, Any], path: str) -> None:
    assert refusal({"BYTES": "sk-\udcff"}, **sections) == f"{path}: the text is not valid Unicode"


def test_a_file_that_contains_itself_is_refused(file: Path) -> None:
    file.write_text("model_list: &all [*all]")
    with pytest.raises(ConfigError, match="contains itself"):
        load_config(file, {})


@pytest.mark.parametrize(
    "sections",
    [
        {"model_list": {"a b": {"litellm_params": {"api_key": "os.environ/UNSET"}}}},
        {"model_list": {"0": {"litellm_params": {"api_key": "os.environ/UNSET"}}}},
        {"model_list.0.litellm_params.api_key": "os.environ/UNSET", "model_list": 5},
    ],
)
def test_what_looks_like_a_deployment_is_a_mistake_if_it_is_none(sections: dict[str, Any]) -> None:
    assert refusal(**sections).startswith("model_list")


def test_litellms_own_file_is_understood(file: Path) -> None:
    file.write_text(LITELLMS)
    config = load_config(file, {"OPENAI_API_KEY": "sk-upstream"})
    first, second = config.model_list
    assert first.model_name == "gpt-5.2"
    assert first.litellm_params.api_key is not None
    assert first.litellm_params.api_key.get_secret_value() == "sk-upstream"
    assert second.litellm_params.api_version == "2025-04-01-preview"
    assert config.background_mode.polling_via_cache == ["openai"]
    assert config.background_mode.native_background_mode == ("o4-mini-deep-research",)
    assert config.router_settings.model_group_alias["short"] == "gpt-5.2"
    assert config.master_keys({}) == [HashedKey.of("sk-1234")]
    assert config.store_url({}) == "redis://127.0.0.1:6379/0"


def test_the_time_to_live_is_that_of_background_mode(file: Path) -> None:
    file.write_text(LITELLMS)
    assert load_config(file, {"OPENAI_API_KEY": "x"}).ttl_s == 1800
    assert config_of(litellm_settings=cache(ttl=60)).ttl_s == 3600


def test_keys_without_effect_are_listed_in_one_warning(file: Path) -> None:
    file.write_text(LITELLMS)
    told = told_in_one(load_config(file, {"OPENAI_API_KEY": "x"}))
    assert told is not None
    assert told.rpartition(": ")[2].split(", ") == [
        "environment_variables",
        "general_settings.database_url",
        "litellm_settings.callbacks",
    ]


# As people have them who use LiteLLM's database, user interface and enterprise features.
FURTHER: dict[str, Any] = {
    "general_settings": {
        "database_url": "postgresql://h/db",
        "database_connection_pool_limit": 10,
        "store_model_in_db": True,
        "alerting": ["slack"],
        "alerting_threshold": 300,
        "ui_access_mode": "admin_only",
        "disable_spend_logs": True,
        "enable_jwt_auth": True,
        "litellm_jwtauth": {"admin_jwt_scope": "x"},
        "custom_auth": "auth.user_api_key_auth",
        "pass_through_endpoints": [{"path": "/v1/rerank", "target": "https://h"}],
        "background_health_checks": False,
        "proxy_batch_write_at": 60,
        "key_management_system": "aws_kms",
        "max_request_size_mb": 5,
    },
    "litellm_settings": {
        "callbacks": ["prometheus"],
        "success_callback": ["langfuse"],
        "set_verbose": False,
        "json_logs": True,
        "cache": True,
        "cache_params": {"type": "s3", "s3_bucket_name": "b", "supported_call_types": ["acompletion"]},
        "max_budget": 100,
        "budget_duration": "30d",
        "default_team_settings": [{"team_id": "t"}],
    },
    "router_settings": {"redis_host": "h", "redis_port": 1, "enable_pre_call_checks": True, "debug_level": "INFO"},
    "guardrails": [{"guardrail_name": "g", "litellm_params": {"guardrail": "aporia"}}],
    "mcp_servers": {"zapier": {"url": "https://h"}},
    "environment_variables": {"REDIS_HOST": "h"},
}


def test_all_of_litellms_other_settings_are_accepted_and_those_that_guard_are_named_again() -> None:
    told = told_in_one(config_of(**FURTHER))
    assert told is not None
    listed, _, guards = told.partition(". Nothing is guarded by ")
    for section in ("general_settings", "router_settings"):
        assert {f"{section}.{name}" for name in FURTHER[section]} <= set(re.findall(r"[\w.*]+", listed))
    assert "litellm_settings.cache_params.s3_bucket_name" in listed
    assert "litellm_settings.cache," not in listed
    assert guards.split(", ") == [
        "general_settings.custom_auth",
        "general_settings.enable_jwt_auth",
        "general_settings.litellm_jwtauth",
        "general_settings.max_request_size_mb",
        "guardrails",
        "litellm_settings.budget_duration",
        "litellm_settings.max_budget",
    ]


def test_what_stands_in_many_deployments_is_told_once() -> None:
    entries = [
        {"model_name": str(n), "litellm_params": {"model": "m", "tags": [], "watsonx_space": "p"}} for n in "abc"
    ]
    told = told_in_one(config_of(model_list=entries))
    assert told is not None
    assert told.endswith(": model_list.*.litellm_params.tags, model_list.*.litellm_params.watsonx_space")


def test_limits_and_prices_are_no_keys_without_effect() -> None:
    params = {"model": "openai/gpt-5.2", "rpm": 10, "tpm": 1000, "input_cost_per_token": 0.1}
    assert (
        told_in_one(config_of(model_list=[{"model_name": "a", "litellm_params": params, "rpm": 1, "tpm": 1}])) is None
    )


def test_defaults_of_requests_are_no_unused_keys() -> None:
    params = {"model": "m", "temperature": 0.5, "reasoning_effort": "low", "top_k": 5, "drop_params": True, "tags": []}
    unused = list(keys_without_effect(config_of(model_list=[{"model_name": "a", "litellm_params": params}])))
    assert unused == ["model_list.0.litellm_params.tags"]


@pytest.mark.parametrize("params", [{"stop": {"x"}}, {"extra_body": {"x": b"y"}}])
def test_what_json_can_not_say_is_refused_at_once(params: dict[str, Any]) -> None:
    said = refusal(model_list=[{"model_name": "a", "litellm_params": {"model": "m", **params}}])
    assert said.startswith(f"model_list.0.litellm_params: Value error, {next(iter(params))} can't be written as JSON: ")


def test_an_empty_file_is_a_config(file: Path) -> None:
    for text in ("", "# nothing yet\n", "---\n", "{}"):
        file.write_text(text)
        config = load_config(file, {})
        assert config.model_list == []
        assert config.store_url({}) == "embedded://"


def test_sections_with_nothing_under_them_mean_the_defaults() -> None:
    sections = ("model_list", "litellm_settings", "router_settings", "general_settings", "pollux")
    assert config_of(**dict.fromkeys(sections)) == config_of()


@pytest.mark.parametrize(
    "sections",
    [
        {"litellm_settings": {"cache_params": None, "responses": None, "num_retries": None}},
        {"litellm_settings": {"responses": {"background_mode": None}}},
        {"litellm_settings": {"responses": {"background_mode": {"native_background_mode": None, "ttl": None}}}},
        {"router_settings": {"model_group_alias": None}},
        {"general_settings": {"master_key": None}},
        {"pollux": {"keys": None, "id_secrets": None, "store": None, "drain_s": None}},
    ],
)
def test_keys_with_nothing_behind_them_mean_the_defaults(sections: dict[str, Any]) -> None:
    config = config_of(**sections)
    assert config.background_mode == config_of().background_mode
    assert (config.ttl_s, config.pollux, config.num_retries) == (3600, config_of().pollux, 2)


def test_an_entry_may_leave_its_optional_sections_empty() -> None:
    params = {"model": "m", "extra_headers": None, "api_key": None}
    (entry,) = config_of(model_list=[{"model_name": "a", "litellm_params": params, "model_info": None}]).model_list
    assert entry.litellm_params.extra_headers == {}
    assert entry.litellm_params.as_written == params
    assert entry.model_info.id is None


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"litellm_params": {"model": "m"}}, "model_list.0.model_name: "),
        ({"model_name": "", "litellm_params": {"model": "m"}}, "model_list.0.model_name: "),
        ({"model_name": "a"}, "model_list.0.litellm_params: "),
        ({"model_name": "a", "litellm_params": None}, "model_list.0.litellm_params: "),
        ({"model_name": "a", "litellm_params": {}}, "model_list.0.litellm_params.model: "),
        ({"model_name": "a", "litellm_params": {"model": "m", "timeout": 0}}, "model_list.0.litellm_params.timeout: "),
        ("gpt-5.2", "model_list.0: "),
    ],
)
def test_a_broken_deployment_is_refused_by_its_path(entry: Any, path: str) -> None:
    assert refusal(model_list=[entry]).startswith(path)


@pytest.mark.parametrize("good", ["a", "gpt-5.2:eu", "A_b-c.d:9"])
def test_a_deployment_may_be_given_an_id(good: str) -> None:
    (entry,) = config_of(model_list=[{**ENTRY, "model_info": {"id": good}}]).model_list
    assert entry.model_info.id == good


def test_what_yaml_takes_for_a_number_or_a_date_may_be_text(file: Path) -> None:
    file.write_text(
        "model_list: [{model_name: 4, litellm_params: {model: m, api_version: 2024-10-21, extra_headers: {a: 1}}, "
        "model_info: {id: 7}}]"
    )
    (entry,) = load_config(file, {}).model_list
    assert (entry.model_name, entry.model_info.id) == ("4", "7")
    assert (entry.litellm_params.api_version, entry.litellm_params.extra_headers) == ("2024-10-21", {"a": "1"})


@pytest.mark.parametrize("bad", ["a b", "a;b", "a/b", "ä", "a\nb", "a,b"])
def test_an_id_that_would_break_composite_ids_is_refused(bad: str) -> None:
    assert refusal(model_list=[{**ENTRY, "model_info": {"id": bad}}]).startswith("model_list.0.model_info.id: ")


def test_two_models_cannot_have_the_same_id() -> None:
    entries = [{**ENTRY, "model_name": name, "model_info": {"id": "same"}} for name in "ab"]
    assert "same" in refusal(model_list=entries)


# The environment.


def test_the_environment_stands_in_for_any_string() -> None:
    environ = {"KEY": "sk-1", "NAME": "gpt", "WAIT": "7.5", "POLL": "all", "OWNER": "alice"}
    config = config_of(
        environ,
        model_list=[
            {
                "model_name": "os.environ/NAME",
                "litellm_params": {"model": "m", "extra_headers": {"x": "os.environ/KEY"}},
            }
        ],
        litellm_settings={"responses": {"background_mode": {"polling_via_cache": "os.environ/POLL"}}},
        pollux={"max_wait_s": "os.environ/WAIT", "keys": [{"name": "os.environ/OWNER", "key": "os.environ/KEY"}]},
    )
    assert config.model_list[0].model_name == "gpt"
    assert config.model_list[0].litellm_params.extra_headers == {"x": "sk-1"}
    assert config.background_mode.polling_via_cache == "all"
    assert config.pollux.max_wait_s == 7.5
    assert config.pollux.keys[0].key == HashedKey.of("sk-1")


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"general_settings": {"master_key": "os.environ/GONE"}}, "general_settings.master_key"),
        ({"pollux": {"max_wait_s": "os.environ/GONE"}}, "pollux.max_wait_s"),
        ({"pollux": {"keys": [{"name": "a", "key": "os.environ/GONE"}]}}, "pollux.keys.0.key"),
        ({"litellm_settings": {"cache_params": {"host": "os.environ/GONE"}}}, "litellm_settings.cache_params.host"),
    ],
)
def test_a_variable_that_is_not_set_is_an_error_with_its_path(sections: dict[str, Any], path: str) -> None:
    assert refusal(**sections) == f"{path}: the environment variable GONE is not set"


def test_a_variable_that_only_litellm_needs_may_be_unset() -> None:
    config = config_of(
        general_settings={"database_url": "os.environ/GONE"},
        litellm_settings={"s3": {"keys": ["os.environ/GONE"]}},
        environment_variables={"A": "os.environ/GONE"},
    )
    assert sorted(keys_without_effect(config)) == [
        "environment_variables",
        "general_settings.database_url",
        "litellm_settings.s3",
    ]


def test_the_master_key_comes_from_the_file_or_else_from_the_environment() -> None:
    environ = {"LITELLM_MASTER_KEY": "sk-environ"}
    assert config_of().master_keys(environ) == [HashedKey.of("sk-environ")]
    assert config_of(general_settings={"master_key": "sk-file"}).master_keys(environ) == [HashedKey.of("sk-file")]
    assert config_of(general_settings={"master_key": ""}).master_keys(environ) == [HashedKey.of("sk-environ")]
    assert config_of().master_keys({}) == []
    assert config_of().master_keys({"LITELLM_MASTER_KEY": ""}) == []


# The store.


def test_the_first_of_the_places_that_name_a_store_wins() -> None:
    environ = {"POLLUX_STORE": "redis://environ"}
    ours, theirs = {"store": "redis://ours"}, cache(host="theirs")
    assert store_of(environ, pollux=ours, litellm_settings=theirs) == "redis://environ"
    assert store_of(pollux=ours, litellm_settings=theirs) == "redis://ours"
    assert store_of(litellm_settings=theirs) == "redis://theirs:6379/0"
    assert store_of() == "embedded://"
    assert store_of({"REDIS_URL": "redis://environ"}) == "embedded://"


def test_a_cache_of_another_type_is_no_store() -> None:
    assert store_of(litellm_settings={"cache": True, "cache_params": {"type": "local", "host": "h"}}) == "embedded://"


@pytest.mark.parametrize(
    ("params", "environ", "url"),
    [
        ({}, {}, "redis://127.0.0.1:6379/0"),
        ({"host": "h", "port": 7000, "db": 3}, {}, "redis://h:7000/3"),
        ({"host": "h", "port": "7000"}, {}, "redis://h:7000/0"),
        ({"host": "h", "password": "p@ss:/?#"}, {}, "redis://:p%40ss%3A%2F%3F%23@h:6379/0"),
        ({"host": "h", "username": "u", "password": "p"}, {}, "redis://u:p@h:6379/0"),
        ({"host": "h", "ssl": True}, {}, "rediss://h:6379/0"),
        (
            {"host": "h", "ssl": True, "ssl_ca_certs": "/etc/ca.pem", "ssl_cert_reqs": "required"},
            {},
            "rediss://h:6379/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fetc%2Fca.pem",
        ),
        (
            {"url": "rediss://h?db=1", "ssl_cert_reqs": "none"},
            {},
            "rediss://h?db=1&ssl_cert_reqs=none&ssl_check_hostname=false",
        ),
        ({"host": "h", "ssl_ca_certs": "/etc/ca.pem"}, {}, "redis://h:6379/0"),
        (
            {
                "sentinel_nodes": [["h", 1]],
                "service_name": "s",
                "ssl": True,
                "ssl_check_hostname": False,
                "ssl_certfile": "c",
                "ssl_keyfile": "k",
            },
            {},
            "sentinels://h:1/s/0?ssl_check_hostname=false&ssl_certfile=c&ssl_keyfile=k",
        ),
        ({"url": "rediss://u:p@h:1/2"}, {"REDIS_URL": "redis://environ"}, "rediss://u:p@h:1/2"),
        ({}, {"REDIS_URL": "redis://environ"}, "redis://environ"),
        ({"host": "h"}, {"REDIS_URL": "redis://environ"}, "redis://h:6379/0"),
        ({}, {"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_PASSWORD": "p"}, "redis://:p@h:7/0"),
        ({"host": "h", "port": 1, "password": "q"}, {"REDIS_PORT": "7", "REDIS_PASSWORD": "p"}, "redis://:q@h:1/0"),
        ({"host": "os.environ/H", "password": "os.environ/P"}, {"H": "h", "P": "p"}, "redis://:p@h:6379/0"),
    ],
)
def test_the_parameters_of_the_cache_make_a_url(params: dict[str, Any], environ: dict[str, str], url: str) -> None:
    assert store_of(environ, litellm_settings=cache(**params)) == url


def test_sentinels_make_a_url_and_need_the_name_of_the_service() -> None:
    nodes = {"sentinel_nodes": [["h", 26379], ["i", 26380]], "password": "p/w", "sentinel_password": "s&"}
    url = store_of({}, litellm_settings=cache(**nodes, service_name="poll", db=2))
    assert url == "sentinel://:p%2Fw@h:26379,i:26380/poll/2?sentinel_password=s%26"
    with pytest.raises(ConfigError, match=r"litellm_settings\.cache_params\.service_name is missing"):
        store_of({}, litellm_settings=cache(**nodes))


def test_the_nodes_of_a_cluster_make_a_url() -> None:
    nodes = [{"host": "h", "port": 7001}, {"host": "i", "port": "7002"}, {"host": "j"}]
    settings = cache(redis_startup_nodes=nodes, password="p/w", ssl=True)
    assert list(keys_without_effect(config_of(litellm_settings=settings))) == []
    assert store_of({}, litellm_settings=settings) == "clusters://:p%2Fw@h:7001,i:7002,j:6379"
    assert store_of({"POLLUX_STORE": "redis://h"}, litellm_settings=settings) == "redis://h"
    environ = {"REDIS_CLUSTER_NODES": '[{"host": "h", "port": 7001}]', "REDIS_PASSWORD": "s"}
    assert store_of(environ, litellm_settings=cache()) == "cluster://:s@h:7001"


@pytest.mark.parametrize(
    "nodes", ["h:7001", '{"host": "h"}', "[7001]", '[{"port": 7001}]', '[{"host": "h", "port": "x"}]']
)
def test_nodes_of_a_cluster_that_can_not_be_read_are_refused_clearly(nodes: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_CLUSTER_NODES"):
        store_of({"REDIS_CLUSTER_NODES": nodes}, litellm_settings=cache())


# Retries and time.


@pytest.mark.parametrize(
    ("router", "litellm", "expected"), [(None, None, 2), (None, 5, 5), (1, 5, 1), (0, 5, 0), (None, 0, 0), (3, None, 3)]
)
def test_the_routers_retries_overrule_the_general_ones(router: int | None, litellm: int | None, expected: int) -> None:
    config = config_of(router_settings={"num_retries": router}, litellm_settings={"num_retries": litellm})
    assert config.num_retries == expected


@pytest.mark.parametrize(("router", "litellm", "expected"), [(None, None, 0), (None, 3, 3), (1, 3, 1), (0, 3, 0)])
def test_the_routers_allowed_fails_overrule_the_general_ones(
    router: int | None, litellm: int | None, expected: int
) -> None:
    config = config_of(router_settings={"allowed_fails": router}, litellm_settings={"allowed_fails": litellm})
    assert config.allowed_fails == expected


def test_request_timeout_is_read_and_must_be_positive() -> None:
    assert config_of(litellm_settings={"request_timeout": 30}).litellm_settings.request_timeout == 30
    assert refusal(litellm_settings={"request_timeout": 0}).startswith("litellm_settings.request_timeout: ")
    assert refusal(litellm_settings={"num_retries": -1}).startswith("litellm_settings.num_retries: ")


# Our section.


@pytest.mark.parametrize(
    ("pollux", "path", "meant"),
    [
        ({"drain": 5}, "pollux.drain", "drain_s"),
        ({"Store": "x"}, "pollux.Store", "store"),
        ({"key": []}, "pollux.key", "keys"),
        (
            {"keys": [{"name": "a", "key": "k"}, {"name": "b", "key": "k", "model": []}]},
            "pollux.keys.1.model",
            "models",
        ),
        (
            {"prices": {"gpt-5.2": {"input": 1, "output": 1, "cached": 1}}},
            "pollux.prices.gpt-5.2.cached",
            "cached_input",
        ),
    ],
)
def test_a_typo_in_ours_is_an_error_that_says_what_is_meant(pollux: dict[str, Any], path: str, meant: str) -> None:
    message = refusal(pollux=pollux)
    assert message.startswith(f"{path}: there is no such key. Did you mean {meant}")


def test_what_resembles_no_key_is_told_which_ones_there_are_around_it() -> None:
    message = refusal(pollux={"keys": [{"name": "a", "key": "k", "budget": 5}]})
    known = ["name", "key", "models", "max_in_flight", "requests_per_minute"]
    assert message == f"pollux.keys.0.budget: there is no such key. Known are: {', '.join(known)}"


def test_a_price_is_no_negative_number() -> None:
    assert refusal(pollux={"prices": {"gpt-5.2": {"input": -1, "output": 1}}}).startswith(
        "pollux.prices.gpt-5.2.input: "
    )


def test_all_mistakes_are_told_at_once() -> None:
    message = refusal(pollux={"drain": 5, "lease_s": "long", "shards": 0}, model_list=[{}])
    assert [line.partition(": ")[0] for line in message.splitlines()] == [
        "model_list.0.model_name",
        "model_list.0.litellm_params",
        "pollux.lease_s",
        "pollux.shards",
        "pollux.drain",
    ]


@pytest.mark.parametrize(
    ("pollux", "path"),
    [
        ({"keys": [{"name": "a"}]}, "pollux.keys.0.key"),
        ({"keys": [{"key": "k"}]}, "pollux.keys.0.name"),
        ({"keys": [{"name": "", "key": "k"}]}, "pollux.keys.0.name"),
        ({"keys": [{"name": "a", "key": ""}]}, "pollux.keys.0.key"),
        ({"keys": {"alice": "k"}}, "pollux.keys"),
        ({"max_wait_s": -1}, "pollux.max_wait_s"),
        ({"max_run_s": 0}, "pollux.max_run_s"),
        ({"max_body_bytes": 0}, "pollux.max_body_bytes"),
        ({"lease_s": 0.5}, "pollux.lease_s"),
        ({"max_attempts": 0}, "pollux.max_attempts"),
        ({"shards": 2000}, "pollux.shards"),
        ({"sse_done": "perhaps"}, "pollux.sse_done"),
        ({"log_format": "xml"}, "pollux.log_format"),
        ([], "pollux"),
    ],
)
def test_a_value_of_ours_that_cannot_be_is_refused_by_its_path(pollux: Any, path: str) -> None:
    assert refusal(pollux=pollux).startswith(f"{path}: ")


@pytest.mark.parametrize("prefix", ["litellm_poll_", "job-", "x", "resp", "Resp_9"])
def test_the_prefix_of_ids_may_be_chosen(prefix: str) -> None:
    assert config_of(pollux={"id_prefix": prefix}).pollux.id_prefix == prefix


@pytest.mark.parametrize("prefix", ["resp_", "a b", "a/b", "ü_", "a%", "a.b", "{a}"])
def test_a_prefix_that_would_break_ids_or_urls_is_refused(prefix: str) -> None:
    assert refusal(pollux={"id_prefix": prefix}).startswith("pollux.id_prefix: ")


def test_the_masters_name_is_taken() -> None:
    assert "master" in refusal(pollux={"keys": [{"name": "master", "key": "k"}]})


def test_several_keys_may_share_a_name() -> None:
    keys = [{"name": "alice", "key": "old"}, {"name": "alice", "key": "new", "models": []}]
    assert [key.name for key in config_of(pollux={"keys": keys}).pollux.keys] == ["alice", "alice"]


def test_a_parsed_config_cannot_be_changed() -> None:
    config = config_of()
    with pytest.raises(ValueError, match="frozen"):
        config.pollux.shards = 2  # type: ignore[misc]


def test_a_printed_config_shows_no_secret() -> None:
    config = config_of(
        model_list=[{"model_name": "a", "litellm_params": {"model": "m", "api_key": "hush"}}],
        general_settings={"master_key": "hush"},
        litellm_settings=cache(password="hush", url="redis://:hush@h"),
        pollux={"keys": [{"name": "a", "key": "hush"}], "id_secrets": ["hush"]},
    )
    assert "hush" not in repr(config) + str(config)


# Files.


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*nowhere\.yaml: No such file or directory"):
        load_config(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ConfigError, match=r"can't read .*: Is a directory"):
        load_config(tmp_path, {})


@pytest.mark.parametrize(
    "raw",
    [
        b"a: [1",
        b"\ta: 1",
        b"a: 1: 2",
        b"a: *nobody",
        b"a: 2025-99-99",
        b"a: \xff",
        b"a: \x00",
        b"a: !!python/object/apply:os.system [ls]",
        b"{" * 2000,
    ],
)
def test_a_file_that_is_no_yaml_is_refused(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(file, {})


def test_what_is_wrong_in_a_file_is_told_without_its_secrets(file: Path) -> None:
    file.write_text('pollux:\n  keys:\n  - {name: a, key: "sk-hush}\n')
    with pytest.raises(ConfigError, match="line 4 column 1") as refused:
        load_config(file, {})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("text", ["- a", "text", "5", "true"])
def test_a_file_that_is_no_mapping_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_config(file, {})


def test_a_file_is_utf8_whatever_the_locale(file: Path) -> None:
    file.write_bytes("pollux: {keys: [{name: zoë, key: k}]}".encode())
    assert load_config(file, {}).pollux.keys[0].name == "zoë"


def test_all_variables_that_are_not_set_are_told_at_once() -> None:
    told = refusal(
        general_settings={"master_key": "os.environ/A"},
        pollux={"id_secrets": ["os.environ/B"], "store": "os.environ/C", "drain_s": "os.environ/D", "max_wait_s": "x"},
    )
    assert all(f"the environment variable {name} is not set" in told for name in "ABCD")
    assert "pollux.max_wait_s: " in told
    assert len(told.splitlines()) == 5


def test_a_deployment_whose_variable_is_not_set_does_not_hinder_the_start() -> None:
    params = {
        "model": "openai/m",
        "api_key": "os.environ/GONE",
        "api_base": "os.environ/AWAY",
        "timeout": "os.environ/T",
    }
    config = config_of(model_list=[{"model_name": "a", "litellm_params": params}, ENTRY])
    assert [entry.unset for entry in config.model_list] == [("GONE", "AWAY", "T"), ()]


def test_white_space_around_secrets_and_addresses_is_no_part_of_them() -> None:
    params = {"model": " openai/m\n", "api_key": "os.environ/KEY", "api_base": " http://h/v1 \n"}
    config = parse_config(
        {
            "model_list": [{"model_name": "a", "litellm_params": params}],
            "general_settings": {"master_key": "os.environ/KEY"},
            "pollux": {"keys": [{"name": "bob ", "key": "\tsk-bob\n"}], "id_secrets": ["os.environ/KEY"]},
            "litellm_settings": {"cache_params": {"type": "redis", "host": "h\n", "password": "os.environ/KEY"}},
        },
        environ={"KEY": "sk-1\n"},
    )
    found = config.model_list[0].litellm_params
    assert (found.model, found.api_base) == ("openai/m", "http://h/v1")
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == "sk-1"
    assert config.master_keys({}) == [HashedKey.of("sk-1")]
    assert [key.key for key in config.pollux.keys] == [HashedKey.of("sk-bob")]
    assert [secret.get_secret_value() for secret in config.pollux.id_secrets] == ["sk-1"]
    assert config.store_url({}) == "redis://:sk-1@h:6379/0"
    assert config_of().master_keys({"LITELLM_MASTER_KEY": " sk-2\n"}) == [HashedKey.of("sk-2")]
    assert config_of().master_keys({"LITELLM_MASTER_KEY": " \n"}) == []
    assert config_of().store_url({"POLLUX_STORE": "redis://h\n"}) == "redis://h"


# Fallbacks.


@pytest.mark.parametrize("section", ["router_settings", "litellm_settings"])
@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"fallbacks": ["b"]}, "exactly one key, such as"),
        ({"fallbacks": [{"a": ["b"], "c": ["d"]}]}, "exactly one key, such as"),
        ({"fallbacks": [{"a": "b"}]}, r"a: expected a list of models, such as \[b\]"),
        ({"fallbacks": [{"a": [1]}]}, "a: each model must be a name"),
        ({"context_window_fallbacks": ["b"]}, "exactly one key, such as"),
        ({"content_policy_fallbacks": [{"a": "b"}]}, "a: expected a list of models"),
        ({"default_fallbacks": [{"a": ["b"]}]}, "each model must be a name"),
        ({"default_fallbacks": "b"}, "valid list"),
        ({"max_fallbacks": -1}, "greater than or equal to 0"),
    ],
)
def test_fallbacks_of_a_wrong_form_are_a_mistake(lists: dict[str, Any], said: str, section: str) -> None:
    complaint = refusal(**{section: lists})
    assert complaint.startswith(f"{section}.{next(iter(lists))}: ")
    assert re.search(said, complaint)
