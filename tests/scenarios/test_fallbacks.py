"""Fallbacks: a request whose model has failed goes on with another one, as LiteLLM's settings say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.support.replica import ALICE, BOB, MASTER_KEY, Replica, running_replica, with_output
from tests.support.upstreams import running_script, running_simulator, seen_by
from tests.support.waiting import wait_until

Json = dict[str, Any]

A, B, C = "model-a", "model-b", "model-c"
WAIT = {"Prefer": "wait=20"}
MODES = pytest.mark.parametrize("background", [True, False], ids=["cached", "proxied"])
SHAPES = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
TOO_LONG = "[[status=400]] [[error_code=context_length_exceeded]]"
FORBIDDEN = "[[status=400]] [[error_code=content_policy_violation]]"


def config(simulator: str, *, providers: Json | None = None, bases: Json | None = None, **router: Any) -> Json:
    """Three models of one simulated provider, each tried once."""
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"{(providers or {}).get(name, 'openai')}/{name}",
                    "api_base": (bases or {}).get(name, simulator),
                    "api_key": f"sk-of-{name}",
                },
            }
            for name in (A, B, C)
        ],
        "litellm_settings": {"responses": {"background_mode": {"polling_via_cache": "all", "ttl": 600}}},
        "router_settings": {"num_retries": 0, "fallbacks": [{A: [B]}], **router},
        "general_settings": {"master_key": MASTER_KEY},
        "pollux": {"keys": [{"name": "alice", "key": ALICE}, {"name": "bob", "key": BOB, "models": [A]}]},
    }


async def ask(client: openai.AsyncOpenAI, text: str, *, stream: bool = False, model: str = A, **body: Any) -> Any:
    """The final response to a request."""
    body = {"model": model, "input": text, "stream": stream, **body}
    if not stream:
        return await client.responses.create(**body, extra_headers=WAIT)
    events = [event async for event in await client.responses.create(**body)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events[-1].response


async def asked(simulator: str) -> list[str]:
    """The models that the provider was asked for, in order."""
    return [request["body"]["model"] for request in (await seen_by(simulator))["requests"] if request["body"]]


@pytest.fixture
async def pollux(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(config(simulator), store_url) as replica:
        yield replica


@MODES
@SHAPES
async def test_a_request_goes_on_with_the_next_model(
    background: bool, stream: bool, pollux: Replica, simulator: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pollux.client() as client:
        made = await ask(client, "hi [[status=503]] [[fail_times=1]]", stream=stream, background=background)
    assert (made.status, made.model) == ("completed", B)
    assert made.output_text.startswith("You said: hi")
    assert await asked(simulator) == [A, B]
    [line] = [record for record in caplog.records if "falls back" in record.getMessage()]
    assert vars(line)["model"] == A
    assert vars(line)["next"] == B
    assert vars(line)["upstream_status"] == 503


@SHAPES
async def test_headers_tell_which_model_has_answered(stream: bool, pollux: Replica) -> None:
    ids = {deployment.model_name: deployment.id for deployment in pollux.context.deployments.all}  # type: ignore[union-attr]
    async with pollux.http() as http:
        for text, model, count in (("plain", A, 0), ("[[status=503]] [[fail_times=1]]", B, 1)):
            async with http.post("responses", json={"model": A, "input": text, "stream": stream}) as answer:
                assert answer.status == 200
                told = [answer.headers[f"x-litellm-{name}"] for name in ("model-group", "model-id")]
                assert told == [model, ids[model]]
                assert answer.headers["x-litellm-attempted-fallbacks"] == str(count)


@MODES
async def test_the_retries_of_a_model_come_before_its_fallbacks(
    background: bool, pollux: Replica, simulator: str
) -> None:
    async with pollux.client() as client:
        text = "[[status=503]] [[fail_times=2]] [[retry_after=0]]"
        made = await ask(client, text, background=background, extra_body={"num_retries": 1})
    assert made.model == B
    assert await asked(simulator) == [A, A, B]


@MODES
async def test_fallbacks_have_fallbacks(background: bool, simulator: str, store_url: str) -> None:
    made_of = config(simulator, fallbacks=[{A: [B]}, {B: [A, C]}])
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        made = await ask(client, "[[status=404]] [[fail_times=2]]", background=background)
    assert made.model == C
    assert await asked(simulator) == [A, B, C]


@MODES
@SHAPES
async def test_the_error_of_the_first_model_is_told_if_all_have_failed(
    background: bool, stream: bool, simulator: str, store_url: str
) -> None:
    async def out(_: web.Request) -> web.Response:
        return web.json_response(
            {"error": {"message": "A is out.", "type": "server_error", "code": "a_out"}}, status=503
        )

    async with (
        running_script(out) as first,
        running_replica(config(simulator, bases={A: first.base_url}), store_url) as pollux,
        pollux.client() as client,
    ):
        if background:
            failed = await ask(client, "[[status=500]]", stream=stream, background=True)
            assert failed.status == "failed"
            assert (failed.error.code, failed.error.message) == ("a_out", "A is out.")
        else:
            with pytest.raises(openai.InternalServerError, match=r"A is out\.") as refused:
                await ask(client, "[[status=500]]", stream=stream)
            assert (refused.value.status_code, refused.value.code) == (503, "a_out")
    assert await asked(simulator) == [B]


@MODES
@SHAPES
@pytest.mark.parametrize(
    ("wrong", "lists", "expected"),
    [
        (TOO_LONG, {}, B),
        (TOO_LONG, {"context_window_fallbacks": [{A: [C]}]}, C),
        (TOO_LONG, {"context_window_fallbacks": [{B: [C]}]}, None),
        (FORBIDDEN, {}, B),
        (FORBIDDEN, {"content_policy_fallbacks": [{A: [C]}]}, C),
        (FORBIDDEN, {"content_policy_fallbacks": [{B: [C]}]}, None),
        ("[[status=400]]", {"context_window_fallbacks": [{A: [C]}]}, B),
        ("[[status=401]]", {}, B),
    ],
)
async def test_the_error_decides_which_list_counts(
    wrong: str, lists: Json, expected: str | None, background: bool, stream: bool, simulator: str, store_url: str
) -> None:
    async with running_replica(config(simulator, **lists), store_url) as pollux, pollux.client() as client:
        request = ask(client, f"{wrong} [[fail_times=1]]", stream=stream, background=background)
        if expected is None and not background:
            with pytest.raises(openai.BadRequestError):
                await request
        else:
            made = await request
            assert (made.status, made.model) == (("completed", expected) if expected else ("failed", A))
    assert await asked(simulator) == [A, *([expected] if expected else [])]


@MODES
async def test_a_refusal_that_comes_as_an_event_falls_back_too(
    background: bool, pollux: Replica, simulator: str
) -> None:
    async with pollux.client() as client:
        text = "[[error_event_after=0]] [[error_only=1]] [[error_code=context_length_exceeded]] [[fail_times=1]]"
        made = await ask(client, text, stream=True, background=background)
    assert made.model == B
    assert await asked(simulator) == [A, B]


@MODES
@SHAPES
async def test_a_model_that_is_silent_too_long_is_left(
    background: bool, stream: bool, simulator: str, store_url: str
) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        running_script(silent) as first,
        running_replica(config(simulator, bases={A: first.base_url}), store_url) as pollux,
        pollux.client() as client,
    ):
        made = await ask(client, "hi", stream=stream, background=background, extra_body={"timeout": 0.5})
    assert made.model == B
    assert len(first.requests) == 1


@MODES
async def test_output_that_has_begun_is_never_begun_again(background: bool, pollux: Replica, simulator: str) -> None:
    text = "one two three [[words=20]] [[cut_after=8]] [[fail_times=1]]"
    async with pollux.client() as client:
        if background:
            made = await ask(client, text, stream=True, background=True)
            assert made.status == "failed"
            assert made.output_text
        else:
            with pytest.raises(openai.APIConnectionError):
                await ask(client, text, stream=True)
    assert await asked(simulator) == [A]


@MODES
async def test_a_model_that_cools_down_is_passed_over(background: bool, pollux: Replica, simulator: str) -> None:
    async with pollux.client() as client:
        for text in ("[[status=503]] [[fail_times=1]]", "again"):
            assert (await ask(client, text, background=background)).model == B
    assert await asked(simulator) == [A, B, B]


@MODES
async def test_a_request_names_fallbacks_of_its_own(background: bool, pollux: Replica, simulator: str) -> None:
    async with pollux.client() as client:
        made = await ask(
            client, f"{TOO_LONG} [[fail_times=1]]", background=background, extra_body={"fallbacks": [{"model": C}, B]}
        )
    assert made.model == C
    assert "fallbacks" not in json.dumps((await seen_by(simulator))["requests"])


@MODES
async def test_a_request_may_want_none(background: bool, pollux: Replica, simulator: str) -> None:
    async with pollux.client() as client:
        request = ask(
            client, "[[status=404]] [[fail_times=1]]", background=background, extra_body={"disable_fallbacks": True}
        )
        if background:
            assert (await request).status == "failed"
        else:
            with pytest.raises(openai.NotFoundError):
                await request
    assert await asked(simulator) == [A]


@MODES
async def test_what_a_request_says_of_fallbacks_is_checked(background: bool, pollux: Replica) -> None:
    async with pollux.client() as alice, pollux.client(BOB) as bob:
        for client, fallbacks, status, code in (
            (alice, B, 400, "invalid_type"),
            (alice, [1], 400, "invalid_value"),
            (alice, [{"model": B, "temperature": 0}], 400, "invalid_value"),
            (alice, ["model-x"], 404, "model_not_found"),
            (bob, [B], 404, "model_not_found"),
        ):
            with pytest.raises(openai.APIStatusError) as refused:
                await ask(client, "hi", background=background, extra_body={"fallbacks": fallbacks})
            assert (refused.value.status_code, refused.value.code) == (status, code)
            assert refused.value.param == "fallbacks"


@MODES
@pytest.mark.parametrize("enforced", [None, True, False])
async def test_whether_a_key_falls_back_to_what_it_may_not_use_is_the_operators_choice(
    enforced: bool | None, background: bool, simulator: str, store_url: str
) -> None:
    made_of = config(simulator)
    if enforced is not None:
        made_of["general_settings"]["enforce_fallback_model_access"] = enforced
    async with running_replica(made_of, store_url) as pollux, pollux.client(BOB) as bob:
        request = ask(bob, "[[status=404]] [[fail_times=1]]", background=background)
        if enforced is False:
            made = await request
            assert made.model == B
            assert (await bob.responses.retrieve(made.id)).model == B
            with pytest.raises(openai.NotFoundError):
                await ask(bob, "hi", model=B, background=background)
        elif background:
            assert (await request).status == "failed"
        else:
            with pytest.raises(openai.NotFoundError):
                await request
    assert await asked(simulator) == ([A, B] if enforced is False else [A])


@MODES
async def test_the_model_that_was_fallen_back_to_goes_on_with_its_response(
    background: bool, pollux: Replica, simulator: str
) -> None:
    async with pollux.client() as client:
        first = await ask(client, "first [[status=404]] [[fail_times=1]]", background=background)
        second = await ask(client, "second", model=B, background=background, previous_response_id=first.id)
        assert (second.status, second.previous_response_id) == ("completed", first.id)
        # The model that failed is asked again, unless only the other provider has what was said before.
        third = await ask(client, "third", background=background, previous_response_id=first.id)
        assert (third.status, third.previous_response_id) == ("completed", first.id)
    *_, continued, told = (await seen_by(simulator))["requests"]
    assert continued["body"]["previous_response_id"]
    if background:
        assert (told["body"]["model"], "first" in json.dumps(told["body"])) == (A, True)
    else:
        assert told["body"]["model"] == B
        assert told["body"]["previous_response_id"] == continued["body"]["previous_response_id"]


@MODES
@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_a_response_that_its_provider_keeps_is_continued_there_or_nowhere_and_a_chain_anywhere(
    provider: str, background: bool, simulator: str, store_url: str
) -> None:
    made_of = config(simulator, providers={A: provider})
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        first = await ask(client, "first", background=background)
        request = ask(client, "[[status=404]] [[fail_times=1]]", background=background, previous_response_id=first.id)
        if provider == "mistral":
            made = await request
            assert (made.model, made.previous_response_id) == (B, first.id)
            assert "You said: first" in json.dumps((await seen_by(simulator))["requests"][-1]["body"])
        elif background:
            assert (await request).status == "failed"
        else:
            with pytest.raises(openai.NotFoundError):
                await request
    assert await asked(simulator) == ([A, A, B] if provider == "mistral" else [A, A])


@MODES
async def test_what_one_provider_can_not_be_told_another_one_is(
    background: bool, simulator: str, store_url: str
) -> None:
    untold: Any = [{"type": "item_reference", "id": "msg_unknown"}]
    made_of = config(simulator, providers={A: "mistral"})
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        made = await ask(client, untold, background=background)
        assert made.model in (B, A)
        with pytest.raises(openai.BadRequestError, match="item_reference"):
            await ask(client, untold, background=background, extra_body={"disable_fallbacks": True})
    assert (await asked(simulator))[-1] == B


@MODES
async def test_a_model_that_can_not_be_used_is_left_at_once(background: bool, simulator: str, store_url: str) -> None:
    made_of = config(simulator)
    made_of["model_list"][0]["litellm_params"]["api_key"] = "os.environ/NOBODY_SETS_THIS"
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        assert (await ask(client, "hi", background=background)).model == B
        with pytest.raises(openai.BadRequestError, match="NOBODY_SETS_THIS"):
            await ask(client, "hi", background=background, extra_body={"disable_fallbacks": True})
    assert await asked(simulator) == [B]


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_a_native_response_falls_back_when_it_is_created(provider: str, simulator: str, store_url: str) -> None:
    made_of = config(simulator, providers={B: provider}, fallbacks=[{A: [B, C]}])
    made_of["litellm_settings"]["responses"]["background_mode"]["native_background_mode"] = [A]
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        made = await ask(client, "[[status=404]] [[fail_times=1]]", background=True)
        # A provider without a background of its own is no way out.
        model = B if provider == "openai" else C
        assert (made.status, made.model) == ("completed", model)
        assert (await client.responses.retrieve(made.id)).model == model
    assert await asked(simulator) == [A, model]


@MODES
@pytest.mark.parametrize(
    ("router", "litellm", "expected"),
    [
        ({"fallbacks": [], "default_fallbacks": [B]}, {"fallbacks": [{A: [C]}]}, C),
        ({"fallbacks": [{A: [B]}]}, {"fallbacks": [{A: [C]}]}, B),
        ({"fallbacks": []}, {"default_fallbacks": [C]}, C),
        ({"fallbacks": [], "default_fallbacks": [B]}, {"default_fallbacks": [C]}, B),
        ({"fallbacks": [{A: [B]}], "max_fallbacks": 0}, {"max_fallbacks": 3}, None),
        ({"fallbacks": [{A: [B]}]}, {"max_fallbacks": 0}, None),
        ({"fallbacks": [{A: ["the-one"]}]}, {}, C),
    ],
)
async def test_settings_are_read_where_litellm_reads_them(
    router: Json, litellm: Json, expected: str | None, background: bool, simulator: str, store_url: str
) -> None:
    made_of = config(simulator, **router)
    made_of["litellm_settings"] |= litellm
    made_of["model_list"][2]["model_info"] = {"id": "the-one"}
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        request = ask(client, "[[status=404]] [[fail_times=1]]", background=background)
        if expected is None and not background:
            with pytest.raises(openai.NotFoundError):
                await request
        else:
            made = await request
            assert (made.status, made.model) == (("completed", expected) if expected else ("failed", A))


async def test_a_cancel_reaches_the_model_that_was_fallen_back_to(simulator: str, store_url: str) -> None:
    made_of = config(simulator)
    made_of["model_list"][1]["model_info"] = {"upstream_background": True}
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        text = "[[status=404]] [[fail_times=1]] [[words=500]] [[delay_ms=100]]"
        made = await client.responses.create(model=A, input=text, background=True)
        await with_output(pollux, made.id)
        assert (await client.responses.cancel(made.id)).status == "cancelled"

        async def cancelled() -> bool:
            requests = (await seen_by(simulator))["requests"]
            return any(request["path"].endswith("/cancel") for request in requests)

        await wait_until(cancelled)
    assert await asked(simulator) == [A, B]


@MODES
async def test_a_fallback_gets_the_clients_own_key_where_it_is_to(
    background: bool, simulator: str, store_url: str
) -> None:
    out = {"error": {"message": "out", "code": "out"}}

    async def only_to_ours(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer sk-of-{A}"
        return web.json_response(out, status=503)

    async with running_script(only_to_ours) as first, running_simulator(api_key=ALICE) as second:
        made_of = config(simulator, bases={A: first.base_url, B: second})
        made_of["model_list"][1]["model_info"] = {"forward_client_key": True}
        async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
            assert (await ask(client, "hi", background=background)).model == B
    assert len(first.requests) == 1


@MODES
async def test_a_guest_falls_back_only_to_what_gets_its_own_key(
    background: bool, simulator: str, store_url: str
) -> None:
    made_of = config(simulator, fallbacks=[{A: [B, C]}])
    made_of["pollux"]["accept_any_key"] = True
    for place in (0, 2):
        made_of["model_list"][place]["model_info"] = {"forward_client_key": True}
    async with running_replica(made_of, store_url) as pollux, pollux.client("sk-of-a-guest") as guest:
        assert (await ask(guest, "[[status=404]] [[fail_times=1]]", background=background)).model == C
    assert await asked(simulator) == [A, C]


@MODES
async def test_a_fallback_may_be_a_name_that_a_wildcard_serves(
    background: bool, simulator: str, store_url: str
) -> None:
    made_of = config(simulator, fallbacks=[{A: ["any/wild"]}])
    params = {"model": "openai/*", "api_base": simulator, "api_key": "sk-of-any"}
    made_of["model_list"].append({"model_name": "any/*", "litellm_params": params})
    async with running_replica(made_of, store_url) as pollux, pollux.client() as client:
        assert (await ask(client, "[[status=404]] [[fail_times=1]]", background=background)).model == "wild"
    assert await asked(simulator) == [A, "wild"]
