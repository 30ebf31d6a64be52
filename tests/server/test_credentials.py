"""Credentials of `credential_list`: what deployments take from them, and what becomes of those that can't."""

from __future__ import annotations

from typing import Any

import pytest

from server.check import describe
from server.config import Config, parse_config
from server.config.sections import ConfigError
from server.config.unused import keys_without_effect
from server.upstream.deployments import Deployment, Deployments

BASE = "http://team.example/v1"


def credential(name: str, **values: Any) -> dict[str, Any]:
    return {"credential_name": name, "credential_values": values, "credential_info": {"description": "of the team"}}


def config_of(*credentials: dict[str, Any], environ: dict[str, str] | None = None, **params: Any) -> Config:
    entry = {"model_name": "a", "litellm_params": {"model": "openai/m", "litellm_credential_name": "team", **params}}
    return parse_config({"model_list": [entry], "credential_list": list(credentials)}, environ=environ or {})


def deployment(*credentials: dict[str, Any], environ: dict[str, str] | None = None, **params: Any) -> Deployment:
    (made,) = Deployments(config_of(*credentials, environ=environ, **params), environ={}).all
    return made


def test_values_of_a_credential_fill_what_the_deployment_leaves_out() -> None:
    made = deployment(credential("other", api_key="x"), credential("team", api_key="k", api_base=BASE), api_key=None)
    assert (made.base_url, made.headers) == (BASE, {"Authorization": "Bearer k"})


def test_the_deployments_own_values_go_before() -> None:
    made = deployment(credential("team", api_key="k", api_base=BASE, model="openai/other"), api_key="own")
    assert (made.base_url, made.headers) == (BASE, {"Authorization": "Bearer own"})
    assert made.upstream_model == "m"


def test_of_two_with_one_name_the_first_counts() -> None:
    made = deployment(credential("team", api_key="1"), credential("team", api_key="os.environ/GONE"))
    assert made.headers == {"Authorization": "Bearer 1"}
    assert made.unusable is None


def test_values_may_come_from_the_environment() -> None:
    made = deployment(credential("team", api_key="os.environ/TEAM_KEY"), environ={"TEAM_KEY": "k"})
    assert made.headers == {"Authorization": "Bearer k"}


def test_a_variable_that_is_not_set_makes_only_those_unusable_who_need_it() -> None:
    shared = credential("team", api_key="os.environ/GONE", api_base=BASE)
    assert deployment(shared).unusable == "the environment variable GONE is not set"
    assert deployment(shared, api_key="own").unusable is None
    assert deployment(credential("other", api_key="os.environ/GONE"), credential("team", api_key="k")).unusable is None


def test_a_name_that_is_not_listed_makes_the_deployment_unusable() -> None:
    said = "credential_list has no 'team', which litellm_params.litellm_credential_name says"
    assert deployment(credential("other", api_key="k")).unusable == said
    assert deployment(api_key="own").unusable == said
    assert f"warning: model_list.0 (a) can't be used: {said}\n" in describe(config_of())


def test_a_value_of_the_wrong_kind_is_refused_by_the_name_of_its_credential() -> None:
    with pytest.raises(ConfigError, match="credential_list: the values of 'team': timeout: "):
        config_of(credential("team", api_key="k", timeout=-1))


def test_an_id_depends_on_the_address_and_not_on_the_secret() -> None:
    """LiteLLM's own id is made from what the file says, so it does not depend on the credential at all."""
    ids = {deployment(credential("team", api_key=key, api_base=BASE)).id for key in "kl"}
    assert ids == {deployment(credential("team"), api_base=BASE).id}
    legacy = {made.legacy_ids for made in (deployment(credential("team", api_key=key)) for key in "kl")}
    assert len(legacy) == 1


def test_a_printed_config_shows_no_value_and_none_is_unused() -> None:
    config = config_of(credential("team", api_key="hush"))
    assert "hush" not in repr(config)
    assert "hush" not in describe(config)
    assert list(keys_without_effect(config)) == []
