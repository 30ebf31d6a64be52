"""Defaults of a deployment: which of its parameters are some, under which name, and that the client's own wins."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.defaults import NO_DEFAULTS, defaults_in, may_be_default, of_responses, with_defaults
from tests.support.generated import json_objects, json_values, moderate

SCHEMA = {"name": "s", "schema": {"type": "object"}, "strict": True}
FUNCTION = {"name": "f", "parameters": {}}


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"model": "openai/m", "api_key": "k", "api_base": "http://h", "timeout": 5, "rpm": 3}, {}),
        ({"temperature": 0.5, "top_p": None, "stop": ["\n"]}, {"temperature": 0.5, "stop": ["\n"]}),
        ({"logit_bias": {50256: -100}}, {"logit_bias": {"50256": -100}}),
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_output_tokens": 6}),
        ({"max_output_tokens": 7, "max_completion_tokens": 6, "max_tokens": 5}, {"max_output_tokens": 7}),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        ({"reasoning_effort": {"effort": "low", "summary": "x"}}, {"reasoning": {"effort": "low", "summary": "x"}}),
        (
            {"reasoning_effort": "high", "reasoning": {"summary": "auto"}},
            {"reasoning": {"effort": "high", "summary": "auto"}},
        ),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, {"reasoning": {"effort": "low"}}),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}, "verbosity": "low"},
            {"text": {"format": {"type": "json_schema", **SCHEMA}, "verbosity": "low"}},
        ),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        ({"response_format": "json"}, {}),
        ({"thinking": {"type": "enabled"}, "top_k": 5}, {"thinking": {"type": "enabled"}, "top_k": 5}),
        (
            {"tools": [{"type": "function", "function": FUNCTION}, {"type": "web_search"}]},
            {"tools": [{"type": "function", "strict": False, **FUNCTION}, {"type": "web_search"}]},
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        ({"tool_choice": "auto", "prompt_cache_key": "k"}, {"tool_choice": "auto", "prompt_cache_key": "k"}),
    ],
)
def test_parameters_that_are_defaults_have_the_names_of_the_responses_api(
    params: dict[str, Any], found: dict[str, Any]
) -> None:
    assert defaults_in(params) == found


@pytest.mark.parametrize(
    "name",
    [
        *("aws_secret_access_key", "vertex_credentials", "azure_ad_token", "watsonx_region_name", "s3_bucket_name"),
        *("input_cost_per_token", "cache_read_input_token_cost", "output_cost_per_second", "cost_per_query"),
        *("litellm_credential_name", "mock_response", "tags", "drop_params", "weight", "order", "tpd", "_private"),
        *("complexity_router_config", "langfuse_host", "client_secret", "someones_api_key", "myToken", "password"),
        *("model", "input", "stream", "background", "previous_response_id", "metadata", "extra_body", "num_retries"),
    ],
)
def test_no_setting_of_a_deployment_is_taken_for_a_field_of_a_request(name: str) -> None:
    assert not may_be_default(name)
    assert defaults_in({name: "x"}) is NO_DEFAULTS


def test_a_provider_of_the_responses_api_is_sent_nothing_that_it_does_not_know() -> None:
    found = defaults_in({"temperature": 1, "stop": ["x"], "max_tokens": 5})
    assert of_responses(found) == {"temperature": 1, "max_output_tokens": 5}


@pytest.mark.parametrize(
    ("body", "defaults", "filled"),
    [
        ({}, {"temperature": 0}, {"temperature": 0}),
        ({"temperature": None}, {"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 0}, {"temperature": 0.5}, {"temperature": 0}),
        ({"store": False}, {"store": True}, {"store": False}),
        ({"instructions": ""}, {"instructions": "x"}, {"instructions": ""}),
        (
            {"reasoning": {"summary": "auto", "effort": None}},
            {"reasoning": {"effort": "high", "summary": "concise"}},
            {"reasoning": {"summary": "auto", "effort": "high"}},
        ),
        ({"text": {"format": {"type": "text"}}}, {"text": {"format": {"type": "json_object"}}}, None),
        ({"reasoning": "wrong"}, {"reasoning": {"effort": "high"}}, None),
        ({"max_tokens": 5}, {"max_output_tokens": 9}, None),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "high"}}, None),
        (
            {"verbosity": "low"},
            {"text": {"verbosity": "high", "format": {"type": "text"}}},
            {"verbosity": "low", "text": {"format": {"type": "text"}}},
        ),
        ({"tools": [{"type": "b"}]}, {"tools": [{"type": "a"}]}, {"tools": [{"type": "a"}, {"type": "b"}]}),
        ({"tools": None}, {"tools": [{"type": "a"}]}, {"tools": [{"type": "a"}]}),
        ({"tools": "wrong"}, {"tools": [{"type": "a"}]}, None),
    ],
)
def test_what_the_client_left_out_is_filled(
    body: dict[str, Any], defaults: dict[str, Any], filled: dict[str, Any] | None
) -> None:
    assert with_defaults(body, defaults) == (body if filled is None else filled)


names = st.sampled_from(["temperature", "reasoning", "text", "tools", "tool_choice", "max_tokens", "verbosity", "stop"])
fields = st.dictionaries(names, json_values | json_objects, max_size=6)


@moderate
@given(fields, fields)
def test_the_clients_own_always_wins_and_nothing_given_is_changed(body: dict[str, Any], params: dict[str, Any]) -> None:
    defaults = defaults_in(params)
    before = deepcopy((body, dict(defaults)))
    filled = with_defaults(body, defaults)
    assert (body, dict(defaults)) == before
    for name, value in body.items():
        if name == "tools" and isinstance(value, list):
            assert filled[name][len(filled[name]) - len(value) :] == value
        elif name in ("reasoning", "text") and isinstance(value, dict):
            assert {key: filled[name][key] for key in value if value[key] is not None} == {
                key: inner for key, inner in value.items() if inner is not None
            }
        elif value is not None:
            assert filled[name] == value
    assert filled.keys() <= body.keys() | defaults.keys()


@moderate
@given(json_objects)
def test_without_defaults_a_body_stays_as_it_is(body: dict[str, Any]) -> None:
    assert with_defaults(body, NO_DEFAULTS) == body


def test_a_filled_body_shares_nothing_with_the_deployment() -> None:
    defaults = defaults_in({"tools": [{"type": "a"}], "text": {"format": {"type": "text"}}, "stop": ["x"]})
    filled = with_defaults({}, defaults)
    filled["tools"][0]["type"] = filled["text"]["format"]["type"] = "changed"
    filled["stop"].append("y")
    assert defaults == {"tools": [{"type": "a"}], "text": {"format": {"type": "text"}}, "stop": ["x"]}
