"""Speech: what is sent to a deployment, in its own words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from server.config import parse_config
from server.errors import Untranslatable
from server.upstream.call import Call
from server.upstream.deployments import Deployment, Deployments
from server.upstream.speech import able_to_tell, spoken

Json = dict[str, Any]


def deployment(model: str, **params: Any) -> Deployment:
    entry = {"model_name": "m", "litellm_params": {"model": model, "api_key": "k", "api_base": "http://h/v1", **params}}
    return Deployments(parse_config({"model_list": [entry]}, environ={}), environ={}).all[0]


def call(**body: Any) -> Call:
    return Call("POST", make_request=lambda: {"model": "up", "input": "hi", **body}, response_id=f"resp_{'0a' * 16}")


def body_for(made: Deployment, **body: Any) -> Json:
    sent: Json = orjson.loads(spoken(made, call(**body)).body or b"")
    return sent


def test_defaults_fill_and_extra_fields_overrule_in_every_dialect() -> None:
    params = {"temperature": 0.5, "max_tokens": 9, "extra_body": {"temperature": 0.1, "own": 1}}
    for model, limit in (("openai/x", "max_output_tokens"), ("mistral/x", "max_tokens"), ("anthropic/x", "max_tokens")):
        sent = body_for(deployment(model, **params))
        assert (sent[limit], sent["temperature"], sent["own"]) == (9, 0.1, 1)
        assert body_for(deployment(model, **params), max_output_tokens=5)[limit] == 5


def test_a_deployment_that_speaks_the_responses_api_is_asked_as_the_client_asks() -> None:
    tools = [{"type": "file_search", "vector_store_ids": ["v"]}]
    speech = spoken(deployment("openai/x"), call(tools=tools, unheard_of=1))
    assert orjson.loads(speech.body or b"") == {"model": "up", "input": "hi", "tools": tools, "unheard_of": 1}
    assert (speech.url, speech.reply) == ("http://h/v1/responses", None)


def test_other_calls_than_creates_are_never_translated() -> None:
    speech = spoken(deployment("openai/x"), Call("GET", ("resp_1", "input_items"), "limit=3"))
    assert (speech.url, speech.body) == ("http://h/v1/responses/resp_1/input_items?limit=3", None)


def test_trials_are_named_beside_those_of_the_config() -> None:
    tools = [{"type": "code_interpreter", "container": {"type": "auto"}}]
    assert spoken(deployment("anthropic/x"), call()).headers == {}
    [named] = spoken(deployment("anthropic/x"), call(tools=tools)).headers.values()
    configured = deployment("anthropic/x", extra_headers={"anthropic-beta": "mine"})
    assert spoken(configured, call(tools=tools)).headers == {"anthropic-beta": f"mine,{named}"}


def test_those_that_can_be_told_all_of_a_request_are_left() -> None:
    claude, mistral, gpt = (deployment(f"{name}/x") for name in ("anthropic", "mistral", "openai"))
    search = {"input": "hi", "tools": [{"type": "web_search"}]}
    assert able_to_tell([claude, mistral, gpt], lambda _: search) == [claude, gpt]
    assert able_to_tell([claude, mistral], lambda _: {"input": "hi"}) == [claude, mistral]
    with pytest.raises(Untranslatable, match="'mistral'"):
        able_to_tell([mistral], lambda _: search)
