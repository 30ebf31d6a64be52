"""Long-waits: a GET or POST that is held until there is something to say."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.replica import CACHED, NATIVE, Replica, create, make_config, running_replica
from tests.support.upstreams import seen_by
from tests.support.waiting import wait_until


@pytest.mark.parametrize("model", [CACHED, NATIVE])
async def test_a_get_that_waits_answers_when_the_response_has_ended(pollux: Replica, model: str) -> None:
    response_id = await create(pollux, "soon [[delay_ms=40]]", model)
    async with pollux.http() as http:
        answer = await http.get(f"responses/{response_id}?wait=20")
        assert (await answer.json())["status"] == "completed"
        assert answer.headers["Preference-Applied"] == "wait=20"
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert "openai-poll-after-ms" not in answer.headers


@pytest.mark.parametrize("model", [CACHED, NATIVE])
async def test_a_wait_that_is_over_answers_with_the_current_state(pollux: Replica, model: str) -> None:
    response_id = await create(pollux, "later [[first_delay_ms=30000]]", model)
    async with pollux.http() as http:
        began = time.monotonic()
        answer = await http.get(f"responses/{response_id}", headers={"Prefer": "respond-async, wait=1"})
        assert 0.9 < time.monotonic() - began < 5
        assert answer.status == 200
        assert (await answer.json())["status"] in ("queued", "in_progress")
        assert answer.headers["openai-poll-after-ms"] == "1000"
        assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("model", [CACHED, NATIVE])
async def test_a_post_that_prefers_to_wait_answers_with_the_finished_response(pollux: Replica, model: str) -> None:
    async with pollux.http() as http:
        answer = await http.post(
            "responses", json={"model": model, "input": "now", "background": True}, headers={"Prefer": "wait=20"}
        )
        body = await answer.json()
        assert body["status"] == "completed"
        assert "now" in body["output"][0]["content"][0]["text"]
        assert answer.headers["Preference-Applied"] == "wait=20"


async def test_the_longest_wait_is_bounded_and_a_parameter_wins_over_a_preference(
    simulator: str, store_url: str
) -> None:
    async with running_replica(make_config(simulator, max_wait_s=1), store_url) as pollux:
        response_id = await create(pollux, "later [[first_delay_ms=30000]]")
        async with pollux.http() as http:
            began = time.monotonic()
            answer = await http.get(f"responses/{response_id}?wait=50", headers={"Prefer": "wait=0"})
            assert answer.headers["Preference-Applied"] == "wait=1"
            assert 0.9 < time.monotonic() - began < 5
            answer = await http.get(f"responses/{response_id}?wait=0", headers={"Prefer": "wait=50"})
            assert answer.headers["Preference-Applied"] == "wait=0"


@pytest.mark.parametrize("preference", ["wait=x", "wait=-3", "wait", "respond-async", "handling=lenient", "wait=1.5"])
async def test_a_preference_that_is_malformed_or_unknown_is_passed_over(pollux: Replica, preference: str) -> None:
    response_id = await create(pollux, "later [[first_delay_ms=30000]]")
    async with pollux.http() as http:
        began = time.monotonic()
        answer = await http.get(f"responses/{response_id}", headers={"Prefer": preference})
        assert answer.status == 200
        assert time.monotonic() - began < 1
        assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize("way", ["If-None-Match", "after"])
async def test_a_poller_with_an_etag_sees_each_state_once_and_partial_output_at_once(pollux: Replica, way: str) -> None:
    response_id = await create(pollux, "one two three [[delay_ms=60]]")
    tags, texts, status = [], [], "queued"
    async with pollux.http() as http:
        answer = await http.get(f"responses/{response_id}")
        while status not in ("completed", "failed"):
            tag = answer.headers["ETag"]
            if way == "after":
                answer = await http.get(f"responses/{response_id}?wait=10&after={tag}")
            else:
                answer = await http.get(f"responses/{response_id}?wait=10", headers={"If-None-Match": tag})
            assert answer.status == 200
            body = await answer.json()
            status = body["status"]
            tags.append(answer.headers["ETag"])
            texts.append(sum(len(part["text"]) for item in body["output"] for part in item["content"]))
    assert status == "completed"
    assert len(set(tags)) == len(tags), "never the same state twice"
    assert len(tags) > 5, "partial output came as it arrived"
    assert texts == sorted(texts)


async def test_what_a_client_has_already_is_304_or_with_after_the_same_object(pollux: Replica) -> None:
    response_id = await create(pollux, "done")
    async with pollux.http() as http:
        answer = await http.get(f"responses/{response_id}?wait=20")
        tag, body = answer.headers["ETag"], await answer.json()
        for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            began = time.monotonic()
            unchanged = await http.get(f"responses/{response_id}?wait=10", headers={"If-None-Match": given})
            assert unchanged.status == 304
            assert await unchanged.read() == b""
            assert unchanged.headers["ETag"] == tag
            assert time.monotonic() - began < 2, "a terminal response changes no more: the answer is immediate"
        again = await http.get(f"responses/{response_id}", params={"after": tag, "wait": "10"})
        assert again.status == 200
        assert await again.json() == body
        changed = await http.get(f"responses/{response_id}", headers={"If-None-Match": '"1.1"'})
        assert changed.status == 200


async def test_without_a_wait_a_running_response_that_is_known_is_304_at_once(pollux: Replica) -> None:
    response_id = await create(pollux, "later [[first_delay_ms=30000]]")
    async with pollux.http() as http:
        answer = await http.get(f"responses/{response_id}?wait=5&after=1.1")
        tag = answer.headers["ETag"]
        began = time.monotonic()
        unchanged = await http.get(f"responses/{response_id}", headers={"If-None-Match": tag})
        assert unchanged.status == 304
        waited = await http.get(f"responses/{response_id}?wait=1", headers={"If-None-Match": tag})
        assert waited.status == 304
        assert waited.headers["ETag"] == tag
        assert 0.9 < time.monotonic() - began < 5


async def test_a_deletion_wakes_everybody_who_waits_with_404(pollux: Replica) -> None:
    response_id = await create(pollux, "never [[first_delay_ms=30000]]")
    async with pollux.http() as http:
        waiting = [asyncio.create_task(http.get(f"responses/{response_id}?wait=30")) for _ in range(3)]
        await subscribed(pollux, response_id)
        began = time.monotonic()
        assert (await http.delete(f"responses/{response_id}")).status == 200
        assert [(await waiter).status for waiter in waiting] == [404, 404, 404]
        assert time.monotonic() - began < 2


async def test_all_waiters_of_a_native_response_share_one_polling_loop(pollux: Replica, simulator: str) -> None:
    response_id = await create(pollux, "native [[first_delay_ms=1500]]", NATIVE)
    async with pollux.http() as http:
        answers = await asyncio.gather(*(http.get(f"responses/{response_id}?wait=20") for _ in range(20)))
        assert {(await answer.json())["status"] for answer in answers} == {"completed"}
        seen = await seen_by(simulator)
    polls = [request for request in seen["requests"] if request["method"] == "GET"]
    assert len(polls) < 20 + 6, "each waiter looks once, then one loop polls for all"


async def subscribed(replica: Replica, response_id: str) -> None:
    assert replica.context is not None
    hub = replica.context.hub
    await wait_until(lambda: len(hub._watches.get(response_id, ())) >= 3, what="three waiters sleep")
