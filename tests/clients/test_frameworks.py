"""OpenAI's Agents SDK and LangChain, at providers of other dialects: tools and structured outputs, in both modes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.scenarios.test_dialects import CLAUDE, EVERY, GPT, MISTRAL, config
from tests.support.replica import ALICE, Replica, running_replica
from tests.support.upstreams import seen_by

pytestmark = pytest.mark.filterwarnings("default")  # these are not ours
WHY = "an optional client: pip install -e '.[clients]'"
each_model = pytest.mark.parametrize("model", [CLAUDE, MISTRAL, GPT])
each_mode = pytest.mark.parametrize("background", [False, True], ids=["proxied", "cached"])
WAIT = {"Prefer": "wait=20"}
"""A framework takes the first answer for the last, so it asks to be answered when the response has ended."""


class Place(BaseModel):
    """What is asked for as a structured output."""

    city: str


@pytest.fixture
async def pollux(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(config(simulator, *EVERY), store_url) as replica:
        yield replica


@each_model
@each_mode
async def test_agents_call_a_tool_and_use_what_it_returns(
    model: str, background: bool, pollux: Replica, simulator: str
) -> None:
    agents: Any = pytest.importorskip("agents", reason=WHY)
    agents.set_tracing_disabled(True)
    asked: list[str] = []

    def lookup(input: str) -> str:  # noqa: A002 - the name that the simulator uses
        """Look something up."""
        asked.append(input)
        return "Zurich"

    async with pollux.client() as client:
        agent = _agent(agents, model, client, background, tools=[agents.function_tool(lookup)])
        result = await agents.Runner.run(agent, "Where? [[tool=lookup]]")
    assert len(asked) == 1
    assert "Zurich" in result.final_output
    assert [one.response_id.startswith("litellm_poll_") for one in result.raw_responses] == [background] * 2
    assert [request["model"] for request in (await seen_by(simulator))["requests"]] == [model, model]


@each_model
@each_mode
async def test_agents_get_a_structured_output(model: str, background: bool, pollux: Replica) -> None:
    agents: Any = pytest.importorskip("agents", reason=WHY)
    agents.set_tracing_disabled(True)
    async with pollux.client() as client:
        agent = _agent(agents, model, client, background, output_type=Place)
        result = await agents.Runner.run(agent, "Where?")
    assert isinstance(result.final_output, Place)


@each_model
async def test_agents_stream(model: str, pollux: Replica) -> None:
    agents: Any = pytest.importorskip("agents", reason=WHY)
    agents.set_tracing_disabled(True)
    async with pollux.client() as client:
        result = agents.Runner.run_streamed(_agent(agents, model, client, background=False), "Hello [[words=9]]")
        deltas = [event.data.delta async for event in result.stream_events() if _is_text(event)]
    assert "".join(deltas) == result.final_output
    assert result.final_output.startswith("You said: Hello")


def _agent(agents: Any, model: str, client: AsyncOpenAI, background: bool, **options: Any) -> Any:
    settings = agents.ModelSettings(extra_headers=WAIT, extra_body={"background": background})
    spoken = agents.OpenAIResponsesModel(model=model, openai_client=client)
    return agents.Agent(name="a", instructions="Be brief.", model=spoken, model_settings=settings, **options)


def _is_text(event: Any) -> bool:
    return bool(event.type == "raw_response_event" and event.data.type == "response.output_text.delta")


@each_model
@each_mode
async def test_langchain_calls_a_tool_and_uses_what_it_returns(model: str, background: bool, pollux: Replica) -> None:
    messages: Any = pytest.importorskip("langchain_core.messages", reason=WHY)
    tools: Any = pytest.importorskip("langchain_core.tools", reason=WHY)

    def lookup(input: str) -> str:  # noqa: A002
        """Look something up."""
        return f"Zurich, {len(input)}"

    tool = tools.tool(lookup)
    chat = _chat(model, background, pollux).bind_tools([tool])
    told: list[Any] = [messages.HumanMessage("Where? [[tool=lookup]]")]
    told.append(await chat.ainvoke(told))
    assert told[-1].response_metadata["id"].startswith("litellm_poll_") == background
    [call] = told[-1].tool_calls
    told.append(await tool.ainvoke(call))
    assert "Zurich" in (await chat.ainvoke(told)).text


@each_model
@each_mode
async def test_langchain_gets_a_structured_output(model: str, background: bool, pollux: Replica) -> None:
    made = await _chat(model, background, pollux).with_structured_output(Place, method="json_schema").ainvoke("Where?")
    assert isinstance(made, Place)


@each_model
async def test_langchain_streams_and_continues_by_id(model: str, pollux: Replica) -> None:
    chat = _chat(model, background=False, pollux=pollux)
    pieces = [piece async for piece in chat.astream("Hello [[words=9]]")]
    assert "".join(piece.text for piece in pieces).startswith("You said: Hello")
    first = await chat.ainvoke("one")
    second = await chat.ainvoke("two", previous_response_id=first.response_metadata["id"])
    assert second.text.startswith("You said: two")


def _chat(model: str, background: bool, pollux: Replica) -> Any:
    langchain: Any = pytest.importorskip("langchain_openai", reason=WHY)
    return langchain.ChatOpenAI(
        model=model,
        base_url=f"{pollux.url}/v1",
        api_key=ALICE,
        use_responses_api=True,
        max_retries=0,
        extra_body={"background": background},
        default_headers=WAIT,
    )
