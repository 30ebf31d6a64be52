"""Cancel, delete, chain, list: everything else that a client does with a response."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import openai
import pytest
import redis
from openai import AsyncOpenAI

from tests.support.replica import BOB, CACHED, NATIVE, Replica, create, make_config, running_replica, with_output
from tests.support.sse import events_of, read_stream
from tests.support.upstreams import seen_by
from tests.support.waiting import wait_until


async def test_cancel_closes_the_upstream_connection_within_a_second_and_stays_final(
    pollux: Replica, simulator: str
) -> None:
    response_id = await create(pollux, "long [[words=500]] [[delay_ms=20]]")
    async with pollux.client() as sdk, pollux.http():
        await with_output(pollux, response_id)
        assert (await seen_by(simulator))["open"] == 1
        began = time.monotonic()
        cancelled = await sdk.responses.cancel(response_id)
        assert cancelled.status == "cancelled"
        assert cancelled.error is None
        assert cancelled.completed_at is None
        assert cancelled.output, "what had arrived is kept"
        await wait_until(lambda: _closed(simulator), timeout_s=1.5, what="the provider's socket is closed")
        assert time.monotonic() - began < 1.5
        again = await sdk.responses.cancel(response_id)
        assert again == cancelled
        assert await sdk.responses.retrieve(response_id) == cancelled


async def _closed(simulator: str) -> bool:
    seen = await seen_by(simulator)
    return bool(seen["open"] == 0 and seen["aborted"] == 1)


async def test_a_cancel_on_another_replica_ends_the_run_and_the_stream(simulator: str, store_url: str) -> None:
    config = make_config(simulator)
    async with (
        running_replica({**config, "pollux": {**config["pollux"], "worker_concurrency": 0}}, store_url) as other,
        running_replica(config, store_url) as one,
        one.http() as http,
        other.client() as sdk,
    ):
        body = {"model": CACHED, "input": "x [[words=500]] [[delay_ms=20]]", "background": True, "stream": True}
        events = events_of(await http.post("responses", json=body))
        seen = [await anext(events) for _ in range(8)]
        await sdk.responses.cancel(seen[0]["response"]["id"])
        seen += [event async for event in events]
        assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
        assert seen[-1]["type"] == "response.failed"
        assert seen[-1]["response"]["status"] == "cancelled"
        assert seen[-1]["response"]["output"] == []
        assert [event["type"].endswith(".failed") for event in seen].count(True) == 1
        await wait_until(lambda: _closed(simulator), timeout_s=1.5, what="the provider's socket is closed")


async def test_a_queued_response_is_cancelled_without_ever_reaching_the_provider(
    simulator: str, store_url: str
) -> None:
    async with running_replica(make_config(simulator, worker_concurrency=0), store_url) as pollux:
        response_id = await create(pollux, "never")
        async with pollux.client() as sdk:
            cancelled = await sdk.responses.cancel(response_id)
            assert cancelled.status == "cancelled"
            assert cancelled.output == []
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.client() as sdk:
        assert (await sdk.responses.retrieve(response_id)).status == "cancelled"
        done = await create(pollux, "after")
        async with pollux.http() as http:
            await http.get(f"responses/{done}?wait=10")
    assert (await seen_by(simulator))["count"] == 1


@pytest.mark.parametrize(
    ("text", "status"), [("hi", "completed"), ("[[fail=1]]", "failed"), ("[[incomplete=1]]", "incomplete")]
)
async def test_what_has_ended_can_not_be_cancelled(pollux: Replica, text: str, status: str) -> None:
    response_id = await create(pollux, text)
    async with pollux.client() as sdk, pollux.http() as http:
        await http.get(f"responses/{response_id}?wait=10")
        with pytest.raises(openai.BadRequestError, match=f"Cannot cancel a {status} response."):
            await sdk.responses.cancel(response_id)
        assert (await sdk.responses.retrieve(response_id)).status == status


async def test_a_deleted_response_is_gone_and_its_run_ends(pollux: Replica, simulator: str) -> None:
    response_id = await create(pollux, "long [[words=500]] [[delay_ms=20]]")
    async with pollux.client() as sdk, pollux.http() as http:
        await with_output(pollux, response_id)
        answer = await http.delete(f"responses/{response_id}")
        assert await answer.json() == {"id": response_id, "object": "response", "deleted": True}
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(response_id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.delete(response_id)
        await wait_until(lambda: _closed(simulator), timeout_s=1.5, what="the provider's socket is closed")


async def test_a_native_response_is_cancelled_and_deleted_at_the_provider(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model=NATIVE, input="long [[first_delay_ms=30000]]", background=True)
    cancelled = await client.responses.cancel(created.id)
    assert (cancelled.id, cancelled.status) == (created.id, "cancelled")
    await client.responses.delete(created.id)
    with pytest.raises(openai.NotFoundError) as caught:
        await client.responses.retrieve(created.id)
    assert created.id in caught.value.message, "the provider's own id does not leak"


async def test_a_synchronous_response_can_not_be_cancelled(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model=CACHED, input="hi")
    assert created.status == "completed"
    assert created.id.startswith("resp_")
    with pytest.raises(openai.BadRequestError, match=r"Cannot cancel a synchronous response\."):
        await client.responses.cancel(created.id)
    assert (await client.responses.retrieve(created.id)).output_text == created.output_text


@pytest.mark.parametrize("first_mode", ["cached", "proxied", "native"])
@pytest.mark.parametrize("second_mode", ["cached", "proxied", "native"])
async def test_a_response_of_any_mode_is_continued_by_one_of_any_mode(
    client: AsyncOpenAI, pollux: Replica, first_mode: str, second_mode: str
) -> None:
    async with pollux.http() as http:

        async def ask(mode: str, **body: object) -> dict[str, object]:
            model = NATIVE if mode == "native" else CACHED
            answer = await http.post(
                "responses",
                json={"model": model, "background": mode != "proxied", **body},
                headers={"Prefer": "wait=20"},
            )
            assert answer.status == 200, await answer.text()
            made: dict[str, object] = await answer.json()
            return made

        first = await ask(first_mode, input="my name is Castor")
        assert first["status"] == "completed"
        second = await ask(second_mode, input="what is it?", previous_response_id=first["id"])
        assert second["status"] == "completed"
        assert second["previous_response_id"] == first["id"]
        assert "Castor" in str(second["output"]), "the provider knew the turn before"


async def test_a_cached_response_is_continued_only_when_it_has_ended(pollux: Replica, client: AsyncOpenAI) -> None:
    running = await create(pollux, "[[first_delay_ms=30000]]")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=CACHED, input="go on", background=True, previous_response_id=running)
    assert caught.value.code == "previous_response_not_finished"


async def test_input_items_are_what_the_client_sent_as_items_with_stable_ids(client: AsyncOpenAI) -> None:
    created = await client.responses.create(
        model=CACHED,
        background=True,
        input=[
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"type": "function_call_output", "call_id": "call_1", "output": "three"},
        ],
    )
    page = await client.responses.input_items.list(created.id, order="asc")
    assert [item.type for item in page.data] == ["message", "message", "function_call_output"]
    assert page.data[0].content[0].text == "one"  # type: ignore[union-attr, index]
    assert page.data[0].id
    newest_first = [item.id async for item in await client.responses.input_items.list(created.id, limit=1)]
    assert newest_first == [item.id for item in reversed(page.data)], "the SDK pages through one by one"


async def test_the_list_shows_the_callers_own_cached_responses_newest_first(pollux: Replica, simulator: str) -> None:
    mine = [await create(pollux, f"number {n}") for n in range(5)]
    async with pollux.http(BOB) as http:
        answer = await http.post("responses", json={"model": CACHED, "input": "bob's", "background": True})
        bobs = (await answer.json())["id"]
    async with pollux.http() as http:
        page = await (await http.get("responses?limit=3")).json()
        assert [response["id"] for response in page["data"]] == mine[:1:-1]
        assert (page["first_id"], page["last_id"], page["has_more"]) == (mine[4], mine[2], True)
        rest = await (await http.get(f"responses?limit=3&after={mine[2]}")).json()
        assert [response["id"] for response in rest["data"]] == mine[1::-1]
        assert rest["has_more"] is False
        await asyncio.gather(*(http.get(f"responses/{one}?wait=10") for one in mine))
        done = await (await http.get("responses?status=completed")).json()
        assert {response["status"] for response in done["data"]} == {"completed"}
        assert len(done["data"]) == 5
        none = await (await http.get("responses?status=cancelled")).json()
        assert none == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    async with pollux.http(BOB) as http:
        page = await (await http.get("responses")).json()
        assert [response["id"] for response in page["data"]] == [bobs]


async def test_every_path_is_served_under_all_prefixes(pollux: Replica) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-test-alice-1111"}) as http:
        for prefix in ("", "/v1", "/openai/v1"):
            body = {"model": CACHED, "input": "hi", "background": True}
            created = await (await http.post(f"{pollux.url}{prefix}/responses", json=body)).json()
            answer = await http.get(f"{pollux.url}{prefix}/responses/{created['id']}?wait=10")
            assert (await answer.json())["status"] == "completed"
            models = await (await http.get(f"{pollux.url}{prefix}/models")).json()
            assert [model["id"] for model in models["data"]] == [CACHED, NATIVE]
            assert (await http.get(f"{pollux.url}{prefix}/models/{CACHED}")).status == 200


async def test_what_was_not_to_be_stored_is_kept_for_ten_minutes_after_its_end(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    config = make_config(simulator)
    config["litellm_settings"]["responses"]["background_mode"]["ttl"] = 7200
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        brief = await create(pollux, "brief", store=False)
        kept = await create(pollux, "kept")
        for response_id in (brief, kept):
            await http.get(f"responses/{response_id}?wait=10")
        assert 590 < admin.ttl(f"pollux:{{0}}:record:{brief}") <= 600
        assert 7190 < admin.ttl(f"pollux:{{0}}:log:{kept}") <= 7200


async def test_proxied_requests_pass_through_as_json_and_as_a_stream(client: AsyncOpenAI, pollux: Replica) -> None:
    answer = await client.responses.create(model=CACHED, input="hello")
    assert "hello" in answer.output_text
    async with client.responses.stream(model=CACHED, input="streamed") as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert "streamed" in final.output_text
    assert (await client.responses.retrieve(final.id)).id == final.id
    async with pollux.http() as http:
        events = await read_stream(await http.post("responses", json={"model": CACHED, "input": "x", "stream": True}))
    ids = {event["response"]["id"] for event in events if "response" in event}
    assert len(ids) == 1
