"""Long-waits: a GET or POST that is held until there is something to say."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from storage import End
from tests.support.replica import ALICE, CACHED, NATIVE, Replica, create, make_config, running_replica, with_output
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
    async with running_replica(make_config(simulator, max_wait_s=1, max_hold_s=0), store_url) as pollux:
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
    await wait_until(lambda: len(hub._watches.get(End(response_id), ())) >= 3, what="three waiters sleep")


# Waits that are longer than a connection may be silent.


def with_short_silence(simulator: str, **pollux: Any) -> dict[str, Any]:
    return make_config(simulator, **{"max_wait_s": 0.3, "max_hold_s": 30, **pollux})


@pytest.fixture
def _impatient_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.hold.BLANK_EVERY_S", 0.2)


@pytest.mark.usefixtures("_impatient_proxies")
@pytest.mark.parametrize("model", [CACHED, NATIVE])
async def test_a_long_wait_is_held_with_white_space_until_the_object_comes(
    model: str, simulator: str, store_url: str
) -> None:
    async with running_replica(with_short_silence(simulator), store_url) as pollux, pollux.http() as http:
        job = {"model": model, "input": "x [[words=20]] [[delay_ms=60]]", "background": True}
        created = await (await http.post("responses", json=job)).json()
        answer = await http.get(f"responses/{created['id']}?wait=25")
        assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=25")
        assert "ETag" not in answer.headers
        assert answer.content_type == "application/json"
        raw = await answer.read()
        blanks = len(raw) - len(raw.lstrip(b" "))
        assert 2 <= blanks <= 20, "every fifth of a second"
        assert (json.loads(raw)["id"], json.loads(raw)["status"]) == (created["id"], "completed")


@pytest.mark.usefixtures("_impatient_proxies")
async def test_a_blocking_call_of_the_sdk_runs_a_long_job(simulator: str, store_url: str) -> None:
    async with running_replica(with_short_silence(simulator), store_url) as pollux, pollux.client() as sdk:
        done = await sdk.responses.create(
            model=CACHED,
            input="x [[words=20]] [[delay_ms=60]]",
            background=True,
            extra_headers={"Prefer": "wait=600"},
        )
        assert done.status == "completed"
        assert done.output_text


@pytest.mark.usefixtures("_impatient_proxies")
async def test_a_held_wait_ends_in_time_and_a_create_then_shows_no_partial_output(
    simulator: str, store_url: str
) -> None:
    config = with_short_silence(simulator, max_hold_s=1)
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        job = {"model": CACHED, "input": "x [[words=500]] [[delay_ms=20]]", "background": True}
        answer = await http.post("responses", json=job, headers={"Prefer": "wait=100"})
        assert answer.headers["Preference-Applied"] == "wait=1"
        created = await answer.json()
        assert (created["status"], created["output"]) == ("in_progress", [])
        assert (await with_output(pollux, created["id"]))["output"]
        held = await (await http.get(f"responses/{created['id']}?wait=100")).json()
        assert held["status"] == "in_progress"
        assert held["output"], "a GET shows what there is"
        await http.delete(f"responses/{created['id']}")


@pytest.mark.parametrize("repeated", [False, True])
async def test_a_create_that_waited_in_vain_shows_no_partial_output(
    repeated: bool, simulator: str, store_url: str
) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        job = {"model": CACHED, "input": "x [[words=500]] [[delay_ms=20]]", "background": True}
        headers = {"Prefer": "wait=0.5", "Idempotency-Key": "once"}
        answer = await http.post("responses?wait=0.5", json=job, headers=headers)
        if repeated:
            await with_output(pollux, (await answer.json())["id"])
            answer = await http.post("responses", json=job, headers={"Idempotency-Key": "once"})
        created = await answer.json()
        assert (created["status"], created["output"]) == ("in_progress", [])
        url = f"responses/{created['id']}"
        newer = await http.get(f"{url}?wait=20", headers={"If-None-Match": answer.headers["ETag"]})
        assert (newer.status, bool((await newer.json())["output"])) == (200, True), "the tag is that of what was shown"
        await http.delete(url)


@pytest.mark.usefixtures("_impatient_proxies")
async def test_a_response_that_vanishes_breaks_the_held_connection(simulator: str, store_url: str) -> None:
    async with running_replica(with_short_silence(simulator), store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, "x [[words=500]] [[delay_ms=20]]")
        answer = await http.get(f"responses/{response_id}?wait=25")
        assert await answer.content.readexactly(1) == b" "
        await http.delete(f"responses/{response_id}")
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.usefixtures("_impatient_proxies")
async def test_a_drain_answers_held_waits_with_the_current_state(simulator: str, store_url: str) -> None:
    async with running_replica(with_short_silence(simulator), store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, "x [[words=500]] [[delay_ms=20]]")
        answer = await http.get(f"responses/{response_id}?wait=25")
        assert await answer.content.readexactly(1) == b" "
        assert pollux.context is not None
        pollux.context.phase.draining = True
        pollux.context.hub.drain()
        assert json.loads(await answer.read())["status"] == "in_progress"


async def test_conditional_waits_and_old_clients_are_not_held(simulator: str, store_url: str) -> None:
    async with running_replica(with_short_silence(simulator), store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, "x [[first_delay_ms=20000]]")
        etag = (await http.get(f"responses/{response_id}?wait=0.2")).headers["ETag"].strip('"')
        answer = await http.get(f"responses/{response_id}?wait=25&after={etag}")
        assert (answer.headers["Preference-Applied"], "ETag" in answer.headers) == ("wait=0.3", True)
        async with running_replica(with_short_silence(simulator, max_hold_s=0), store_url) as brief:
            url = f"{brief.url}/v1/responses/{response_id}?wait=25"
            assert (await http.get(url)).headers["Preference-Applied"] == "wait=0.3"
        host, _, port = pollux.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET /v1/responses/{response_id}?wait=25 HTTP/1.0\r\nAuthorization: Bearer {ALICE}\r\n\r\n".encode()
        )
        assert b"Preference-Applied: wait=0.3" in await reader.read()
        writer.close()
        await http.delete(f"responses/{response_id}")
