"""One config of LiteLLM's with many providers, as people write it: each of them answers in every mode."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from server.check import describe
from server.config import parse_config
from tests.support.replica import ALICE, MASTER_KEY, Replica, running_replica
from tests.support.sse import read_stream
from tests.support.upstreams import seen_by

Json = dict[str, Any]


class Provider(NamedTuple):
    """A deployment as it is written, and how its provider is to be asked."""

    model: str
    """With LiteLLM's prefix."""
    base: str
    """What its `api_base` has behind the host."""
    path: str
    """Where it is asked."""
    dialect: str = "chat"
    key_header: str = "authorization"
    params: Json = {}  # noqa: RUF012 - never changed
    """What else is written."""
    info: Json = {}  # noqa: RUF012 - never changed

    @property
    def variable(self) -> str:
        """The environment variable that holds its key."""
        return f"KEY_OF_{self.model.replace('/', '_').replace('-', '_').replace('.', '_').upper()}"

    @property
    def key(self) -> str:
        return f"sk-{self.model}"


AZURE = "/openai/deployments/gpt-4o/chat/completions"
PROVIDERS = [
    Provider("anthropic/claude-sonnet-4-5", "", "/v1/messages", "messages", "x-api-key"),
    Provider("gemini/gemini-2.5-pro", "/v1beta/openai", "/v1beta/openai/chat/completions"),
    Provider("mistral/mistral-large-latest", "/v1", "/v1/chat/completions"),
    Provider("groq/llama-3.3-70b-versatile", "/openai/v1", "/openai/v1/chat/completions"),
    Provider("deepseek/deepseek-chat", "", "/chat/completions"),
    Provider("together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", "/v1", "/v1/chat/completions"),
    Provider("fireworks_ai/accounts/fireworks/models/kimi-k2", "/inference/v1", "/inference/v1/chat/completions"),
    Provider("openrouter/anthropic/claude-sonnet-4", "/api/v1", "/api/v1/chat/completions"),
    Provider("cohere/command-a-03-2025", "/compatibility/v1", "/compatibility/v1/chat/completions"),
    Provider("cerebras/llama-4-scout", "/v1", "/v1/chat/completions"),
    Provider("nvidia_nim/meta/llama3-70b-instruct", "/v1", "/v1/chat/completions"),
    Provider("perplexity/sonar-pro", "", "/chat/completions"),
    Provider("ollama/llama3.2", "", "/v1/chat/completions"),
    Provider("hosted_vllm/qwen3", "/v1", "/v1/chat/completions"),
    Provider(
        *("azure/gpt-4o", "", AZURE, "chat", "api-key"), params={"api_version": "2025-03-01"}, info={"mode": "chat"}
    ),
    Provider("openai/gpt-5.2", "/v1", "/v1/responses", "responses"),
    Provider("xai/grok-4", "/v1", "/v1/responses", "responses"),
]
REFUSE_TO_BE_ASKED = {"mistral/mistral-large-latest", "cohere/command-a-03-2025"}
each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=[one.model for one in PROVIDERS])


def config(simulator: str) -> Json:
    """What stands in the file. Clients name the models with their prefixes, as LiteLLM's docs do."""
    host = simulator.removesuffix("/v1")
    return {
        "model_list": [
            {
                "model_name": one.model,
                "litellm_params": {
                    "model": one.model,
                    "api_base": f"{host}{one.base}",
                    "api_key": f"os.environ/{one.variable}",
                    **one.params,
                },
                **({"model_info": one.info} if one.info else {}),
            }
            for one in PROVIDERS
        ],
        "litellm_settings": {"responses": {"background_mode": {"polling_via_cache": "all", "ttl": 600}}},
        "general_settings": {"master_key": MASTER_KEY},
        "pollux": {"keys": [{"name": "alice", "key": ALICE}]},
    }


ENVIRON = {one.variable: one.key for one in PROVIDERS}


@pytest.fixture
async def pollux(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(config(simulator), store_url, environ=ENVIRON) as replica:
        yield replica


def text_of(response: Json) -> str:
    assert response["status"] == "completed"
    return "".join(part["text"] for item in response["output"] for part in item["content"])


@each_provider
async def test_each_provider_answers_in_every_mode_and_gets_its_own_key(
    provider: Provider, simulator: str, pollux: Replica
) -> None:
    body = {"model": provider.model, "input": "Hello [[words=5]]"}
    async with pollux.http() as http:
        proxied = await (await http.post("responses", json=body)).json()
        streamed = await read_stream(await http.post("responses", json={**body, "stream": True}))
        waiting = {"Prefer": "wait=20"}
        cached = await (await http.post("responses", json={**body, "background": True}, headers=waiting)).json()
        events = await read_stream(await http.post("responses", json={**body, "background": True, "stream": True}))
        final = events[-1]["response"]
        last = len(events) // 2
        resumed = await http.get(f"responses/{final['id']}?stream=true&starting_after={last}")
        assert await read_stream(resumed) == events[last + 1 :]
    answers = [proxied, streamed[-1]["response"], cached, final]
    [text] = {text_of(answer) for answer in answers}
    assert text.startswith("You said: Hello")

    asked = (await seen_by(simulator))["requests"]
    assert len(asked) == 4
    for answer, request in zip(answers, asked, strict=True):
        # The simulator tells the usage of a stream to those who ask for it; these providers tell it unasked.
        untold = request["stream"] and provider.model in REFUSE_TO_BE_ASKED
        assert untold or answer["usage"]["output_tokens"] > 0
        assert ("stream_options" in request["body"]) == (
            request["stream"] and provider.dialect == "chat" and not untold
        )
    assert {request["path"] for request in asked} == {provider.path}
    assert {request["model"] for request in asked} == {provider.model.partition("/")[2]}
    key = hashlib.sha256(provider.key.encode()).hexdigest()
    for request in asked:
        assert (request["key_headers"], request["key_sha256"]) == ([provider.key_header], [key])
    assert {request["query"] for request in asked} == {"api-version=2025-03-01" if provider.params else ""}


def test_each_deployment_is_explained() -> None:
    text = describe(parse_config(config("http://upstream.example/v1"), environ=ENVIRON))
    lines = text.splitlines()
    assert "warning: " not in text
    for provider in PROVIDERS:
        place = lines.index(provider.model)
        assert lines[place + 1] == "  background: cached, because polling_via_cache is all"
        prefix, _, model = provider.model.partition("/")
        assert f": {prefix}, dialect {provider.dialect}, model {model}, http://upstream.example" in lines[place + 2]
        assert lines[place + 2].endswith(", credential set")
        assert provider.key not in text


async def test_a_deployment_without_its_variable_hinders_no_other(simulator: str, store_url: str) -> None:
    missing, other = PROVIDERS[0], PROVIDERS[1]
    environ = {name: key for name, key in ENVIRON.items() if name != missing.variable}
    async with running_replica(config(simulator), store_url, environ=environ) as replica, replica.http() as http:
        refused = await http.post("responses", json={"model": missing.model, "input": "Hello"})
        assert (refused.status, (await refused.json())["error"]["code"]) == (400, "model_not_served")
        assert missing.variable in (await refused.json())["error"]["message"]
        answered = await http.post("responses", json={"model": other.model, "input": "Hello"})
        assert text_of(await answered.json()).startswith("You said: Hello")
