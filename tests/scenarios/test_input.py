"""What may be asked about an input without a response being made: its tokens, and a compacted form of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from aiohttp import web
from openai.types.responses import ResponseCompactionItem
from yarl import URL

from tests.support.refusals import refusal
from tests.support.replica import ALICE, BOB, CACHED, MASTER_KEY, NATIVE, Replica, make_config, running_replica
from tests.support.upstreams import running_script, running_simulator, seen_by
from tests.support.waiting import wait_until

CLAUDE, MISTRAL = "claude-sonnet-4-5", "mistral-large"
TOOL: Any = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}, "strict": False}
WAIT = {"Prefer": "wait=20"}


def config(upstream: str, **pollux: Any) -> dict[str, Any]:
    made = make_config(upstream, **pollux)
    made["litellm_settings"]["responses"]["background_mode"]["polling_via_cache"] = "all"
    params = {"api_base": upstream, "api_key": "sk-upstream-secret"}
    made["model_list"] += [
        {"model_name": CLAUDE, "litellm_params": {"model": f"anthropic/{CLAUDE}", **params}},
        {"model_name": MISTRAL, "litellm_params": {"model": f"mistral/{MISTRAL}", **params}},
    ]
    return made


@pytest.fixture
async def pollux(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(config(simulator), store_url) as replica:
        yield replica


@pytest.fixture
async def sdk(pollux: Replica) -> AsyncIterator[openai.AsyncOpenAI]:
    async with pollux.client() as client:
        yield client


async def last_told(simulator: str) -> dict[str, Any]:
    seen: dict[str, Any] = (await seen_by(simulator))["requests"][-1]
    return seen


@pytest.mark.parametrize(("model", "path"), [(CACHED, "responses/input_tokens"), (CLAUDE, "messages/count_tokens")])
async def test_the_tokens_of_an_input_are_as_many_as_its_response_tells(
    model: str, path: str, simulator: str, sdk: openai.AsyncOpenAI
) -> None:
    asked: Any = {"model": model, "input": "Hello. " * 50, "instructions": "Be brief.", "tools": [TOOL]}
    counted = await sdk.responses.input_tokens.count(**asked, reasoning={"effort": "low"})
    assert counted.object == "response.input_tokens"
    seen = await last_told(simulator)
    assert seen["path"] == f"/v1/{path}"
    assert "Be brief." in json.dumps(seen["body"])
    assert seen["body"]["tools"][0]["name"] == "lookup"
    made = await sdk.responses.create(**asked)
    assert made.usage is not None
    assert counted.input_tokens == made.usage.input_tokens > 50


async def test_what_a_deployment_adds_to_each_request_counts_as_well(simulator: str, store_url: str) -> None:
    adding = config(simulator)
    for entry in adding["model_list"]:
        entry["litellm_params"] |= {"instructions": "Speak Latin.", "temperature": 0.2, "max_tokens": 9}
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(adding, store_url))
        sdk = await stack.enter_async_context(pollux.client())
        for model in (CACHED, CLAUDE):
            await sdk.responses.input_tokens.count(model=model, input="Hello")
            body = (await last_told(simulator))["body"]
            assert "Speak Latin." in json.dumps(body)
            assert not {"temperature", "max_tokens", "max_output_tokens"} & body.keys()


@pytest.mark.parametrize("background", [True, False], ids=["cached", "proxied"])
@pytest.mark.parametrize("named", [True, False], ids=["with_model", "without"])
async def test_a_previous_response_is_counted_where_it_lives(
    background: bool, named: bool, simulator: str, sdk: openai.AsyncOpenAI
) -> None:
    for model in (CACHED, CLAUDE):
        made = await sdk.responses.create(model=model, input="first words", background=background, extra_headers=WAIT)
        options: Any = {"model": model} if named else {}
        counted = await sdk.responses.input_tokens.count(previous_response_id=made.id, input="more", **options)
        assert counted.input_tokens > 0
        body = (await last_told(simulator))["body"]
        if model == CACHED:
            assert body["previous_response_id"].startswith("resp_")
            assert body["previous_response_id"] != made.id
            assert body["input"] == "more"
        else:
            assert "You said: first words" in json.dumps(body["messages"]), "the chain stands in front"
            assert "previous_response_id" not in body


async def test_without_a_model_and_a_previous_response_nobody_knows_whom_to_ask(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'model'"):
        await sdk.responses.input_tokens.count(input="Hello")
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.responses.input_tokens.count(input="Hello", previous_response_id="resp_unknown")
    assert refused.value.code == "previous_response_not_found"


async def test_a_provider_that_lacks_the_operation_is_named(pollux: Replica) -> None:
    async with pollux.http() as http:
        for path, model, provider, what in (
            ("input_tokens", MISTRAL, "mistral", "count the tokens of an input"),
            ("compact", MISTRAL, "mistral", "compact an input"),
            ("compact", CLAUDE, "anthropic", "compact an input"),
        ):
            answer = await refusal(await http.post(f"responses/{path}", json={"model": model, "input": "x"}))
            assert answer.fields == (400, "invalid_request_error", "operation_not_served", "model")
            assert answer.message == f"The provider '{provider}' of the model '{model}' can't {what}."


async def test_a_keys_models_hold_and_others_responses_stay_hidden(simulator: str, store_url: str) -> None:
    keys = [{"name": "alice", "key": ALICE}, {"name": "bob", "key": BOB, "models": [NATIVE]}]
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(config(simulator, keys=keys), store_url))
        alice, bob, master = [await stack.enter_async_context(pollux.client(key)) for key in (ALICE, BOB, MASTER_KEY)]
        made = await alice.responses.create(model=CACHED, input="mine")
        for asked in (bob.responses.input_tokens.count, bob.responses.compact):
            with pytest.raises(openai.NotFoundError, match="does not exist"):
                await asked(model=CACHED, input="x")
            with pytest.raises(openai.BadRequestError, match="not found"):
                await asked(model=NATIVE, input="x", previous_response_id=made.id)
        assert (await master.responses.input_tokens.count(previous_response_id=made.id)).input_tokens > 0


async def test_a_compacted_conversation_goes_on_at_the_account_that_made_it(store_url: str) -> None:
    async with AsyncExitStack() as stack:
        two = [await stack.enter_async_context(running_simulator()) for _ in range(2)]
        halves = [make_config(one) for one in two]
        both = {**halves[0], "model_list": [entry for half in halves for entry in half["model_list"]]}
        pollux = await stack.enter_async_context(running_replica(both, store_url))
        sdk = await stack.enter_async_context(pollux.client())
        for _ in range(8):
            given: Any = [{"role": "user", "content": "remember me"}, {"role": "assistant", "content": "I do"}]
            compacted = await sdk.responses.compact(model=CACHED, input=given)
            assert compacted.object == "response.compaction"
            assert compacted.id.startswith("resp_")
            assert compacted.usage.input_tokens > 0
            *users, item = compacted.output
            assert isinstance(item, ResponseCompactionItem)
            assert item.encrypted_content.startswith("pollux-account.")
            assert len(users) == 1
            before = [(await seen_by(one))["count"] for one in two]
            kept = [one.to_dict(warnings=False) for one in compacted.output]
            follow_up: Any = [*kept, {"role": "user", "content": "and now?"}]
            await sdk.responses.create(model=CACHED, input=follow_up)
            await sdk.responses.input_tokens.count(model=CACHED, input=follow_up)
            await sdk.responses.compact(model=CACHED, input=follow_up)
            after = [(await seen_by(one))["count"] for one in two]
            assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0, 3], "all at one account"
            made_by = next(one for one, a, b in zip(two, before, after, strict=True) if b > a)
            told = (await last_told(made_by))["body"]["input"]
            assert any(str(one.get("encrypted_content")).startswith("gAAAAA") for one in told), "unmarked on the way in"


async def test_a_compaction_goes_on_from_a_previous_response_of_any_kind(
    simulator: str, sdk: openai.AsyncOpenAI
) -> None:
    native = await sdk.responses.create(model=NATIVE, input="native")
    await sdk.responses.compact(model=NATIVE, previous_response_id=native.id)
    assert (await last_told(simulator))["body"]["previous_response_id"].startswith("resp_")
    told = await sdk.responses.create(model=CLAUDE, input="elsewhere", background=True, extra_headers=WAIT)
    await sdk.responses.compact(model=CACHED, previous_response_id=told.id)
    body = (await last_told(simulator))["body"]
    assert "You said: elsewhere" in json.dumps(body["input"])
    assert "previous_response_id" not in body


async def test_what_passes_is_tried_again_and_no_limit_of_creates_counts(simulator: str, store_url: str) -> None:
    limited = config(simulator, keys=[{"name": "alice", "key": ALICE, "requests_per_minute": 1}])
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(running_replica(limited, store_url))
        sdk = await stack.enter_async_context(pollux.client())
        for asked in (sdk.responses.compact, sdk.responses.input_tokens.count):
            await asked(model=CACHED, input=f"Hi [[status=503]] [[fail_times=1]] [[fail_key={asked.__qualname__}]]")
        assert (await seen_by(simulator))["count"] == 4
        with pytest.raises(openai.BadRequestError, match="told to answer with status 400"):
            await sdk.responses.compact(model=CACHED, input="Hi [[status=400]]")
        await sdk.responses.create(model=CACHED, input="Hi")
        with pytest.raises(openai.RateLimitError):
            await sdk.responses.create(model=CACHED, input="Hi")


async def test_a_compaction_is_paid_for_and_a_count_is_not(pollux: Replica) -> None:
    async with pollux.http() as http:
        await http.post("responses/input_tokens", json={"model": CACHED, "input": "x"})
        answer = await http.post("responses/compact", json={"model": CACHED, "input": "x"})
        usage = (await answer.json())["usage"]

        async def counted() -> list[Any]:
            rows: list[Any] = (await (await http.get("usage")).json())["data"]
            return rows

        await wait_until(counted, what="the usage is stored")
        [row] = await counted()
        assert (row["requests"], row["input_tokens"]) == (1, usage["input_tokens"])


# Operations that Pollux does not know.


async def unknown_operations(request: web.Request) -> web.StreamResponse:
    named = request.path.partition("/responses/")[2].split("/")[0]
    if request.method == "POST" and not named:
        made = {"id": "resp_0123456789abcdef", "object": "response", "status": "completed", "output": []}
        if not (await request.json()).get("stream"):
            return web.json_response(made)
        frames = (
            f"event: {kind}\ndata: {json.dumps({'type': kind, 'response': made})}\n\n"
            for kind in ("response.created", "response.completed")
        )
        return web.Response(text="".join(frames), content_type="text/event-stream")
    asked = {"method": request.method, "query": request.query_string, "body": await request.text()}
    answer = {"id": "share_1", "object": "response.share", "of": named, "asked": asked}
    return web.json_response(answer, status=404 if request.path.endswith("/nothing") else 200)


@pytest.mark.parametrize("background", [True, False], ids=["cached", "proxied"])
async def test_an_unknown_operation_on_a_response_is_left_to_its_provider(background: bool, store_url: str) -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_script(unknown_operations))
        pollux = await stack.enter_async_context(running_replica(make_config(upstream.base_url), store_url))
        http = await stack.enter_async_context(pollux.http())
        body = {"model": CACHED, "input": "x", "background": background}
        made = await (await http.post("responses", json=body, headers=WAIT)).json()
        assert made["status"] == "completed"
        for method, sent in (("GET", None), ("POST", {"with": "this"}), ("DELETE", None)):
            path = f"responses/{made['id']}/share/item_1?a=b%20c&include[]=x&api-version=1"
            answer = await (await http.request(method, path, json=sent)).json()
            assert answer["id"] == "share_1"
            assert answer["of"] == made["id"], "no raw id leaves"
            asked = answer["asked"]
            assert (asked["method"], asked["query"]) == (method, "a=b c")
            assert json.loads(asked["body"] or "null") == sent
            assert upstream.requests[-1].path_qs.startswith("/v1/responses/resp_0123456789abcdef/share/item_1")
        before = len(upstream.requests)
        for hidden in ("..", "share/..", "%2e%2e/models", "share%2Fitem", "cancel/x", "a.b", "share//x"):
            answer = await http.get(URL(f"{pollux.url}/v1/responses/{made['id']}/{hidden}", encoded=True))
            assert answer.status in (404, 405), hidden
        bob = await stack.enter_async_context(pollux.http(BOB))
        assert (await bob.get(f"responses/{made['id']}/share")).status == 404
        assert len(upstream.requests) == before


async def test_an_unknown_operation_on_a_response_that_is_kept_here_is_404(pollux: Replica) -> None:
    async with pollux.http() as http:
        made = await (await http.post("responses", json={"model": CLAUDE, "input": "x"})).json()
        answer = await refusal(await http.get(f"responses/{made['id']}/share"))
        assert answer.status == 404
        assert answer.message.endswith("its provider does not keep the response.")
