"""Many responses at once: one GET that waits for any or all of them, and one POST that cancels them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
import redis
from aiohttp import web

from server.protocol.ids import CompositeId, encode_composite
from storage import End, StoreUnavailable
from storage.keys import Shard
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    create,
    make_config,
    replica_process,
    running_replica,
    with_output,
)
from tests.support.upstreams import running_script, seen_by
from tests.support.waiting import wait_until

LATER = "later [[first_delay_ms=30000]]"


async def many(http: aiohttp.ClientSession, ids: list[str], **query: Any) -> list[dict[str, Any]]:
    answer = await http.get("responses", params={"ids": ",".join(ids), **query})
    assert answer.status == 200, await answer.text()
    body = await answer.json()
    assert body["object"] == "list"
    assert (body["first_id"], body["last_id"], body["has_more"]) == (ids[0], ids[-1], False)
    data: list[dict[str, Any]] = body["data"]
    assert [entry["id"] for entry in data] == ids, "in the order asked"
    return data


async def cancelled(http: aiohttp.ClientSession, ids: list[str]) -> list[dict[str, Any]]:
    answer = await http.post("responses/cancel", json={"ids": ids})
    assert answer.status == 200, await answer.text()
    body = await answer.json()
    assert [entry["id"] for entry in body["data"]] == ids
    data: list[dict[str, Any]] = body["data"]
    return data


def statuses(entries: list[dict[str, Any]]) -> list[str]:
    return [entry.get("status", entry["object"]) for entry in entries]


def not_found(response_id: str) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "error",
        "status_code": 404,
        "error": {
            "message": f"Response with id '{response_id}' not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
    }


def watched(replica: Replica) -> int:
    """How many responses have waiters in this replica."""
    assert replica.context is not None
    return sum(isinstance(topic, End) for topic in replica.context.hub._watches)


# Waiting.


@pytest.mark.parametrize("models", [(CACHED, CACHED), (NATIVE, NATIVE), (CACHED, NATIVE), (NATIVE, CACHED)])
async def test_a_wait_for_any_answers_when_the_first_has_ended(pollux: Replica, models: tuple[str, str]) -> None:
    slow, quick = await create(pollux, LATER, models[0]), await create(pollux, "soon [[delay_ms=100]]", models[1])
    async with pollux.http() as http:
        began = time.monotonic()
        entries = await many(http, [slow, quick], wait=25)
        assert time.monotonic() - began < 10
        assert entries[0]["status"] in ("queued", "in_progress")
        assert entries[1]["status"] == "completed"
        assert [await (await http.get(f"responses/{one}")).json() for one in (quick,)] == entries[1:]


@pytest.mark.parametrize("models", [(CACHED, CACHED), (NATIVE, NATIVE), (CACHED, NATIVE)])
async def test_a_wait_for_all_answers_when_the_last_has_ended(pollux: Replica, models: tuple[str, str]) -> None:
    ids = [
        await create(pollux, "slow [[first_delay_ms=2500]]", models[0]),
        await create(pollux, "quick [[first_delay_ms=600]]", models[1]),
    ]
    async with pollux.http() as http:
        assert statuses(await many(http, ids, wait=25, until="all")) == ["completed", "completed"]


async def test_a_wait_that_is_over_answers_with_the_current_states(pollux: Replica) -> None:
    ids = [await create(pollux, LATER), await create(pollux, LATER, NATIVE), await create(pollux, "quick")]
    async with pollux.http() as http:
        await http.get(f"responses/{ids[2]}?wait=10")
        for query, preference in (({"wait": "1"}, None), ({}, "wait=1")):
            began = time.monotonic()
            answer = await http.get(
                "responses",
                params={"ids": ",".join(ids), "until": "all", **query},
                headers={"Prefer": preference} if preference else {},
            )
            assert 0.9 < time.monotonic() - began < 5
            assert answer.headers["Preference-Applied"] == "wait=1"
            assert answer.headers["openai-poll-after-ms"] == "1000"
            assert answer.headers["Cache-Control"] == "private, no-cache"
            assert statuses((await answer.json())["data"])[2] == "completed"
            assert not {"completed", "failed"} & set(statuses((await answer.json())["data"])[:2])
        answer = await http.get("responses", params={"ids": ",".join(ids), "wait": 30})
        assert "openai-poll-after-ms" not in answer.headers, "one has ended, which was the question"
        assert statuses(await many(http, ids))[2] == "completed", "without a wait the answer is immediate"


async def test_one_end_among_two_hundred_wakes_a_wait_on_another_replica_at_once(
    simulator: str, store_url: str
) -> None:
    config = make_config(simulator, worker_concurrency=0)
    async with (
        running_replica(config, store_url) as one,
        running_replica(config, store_url) as other,
        one.http() as http,
        other.http() as elsewhere,
    ):
        ids = await asyncio.gather(*(create(one, "never") for _ in range(200)))
        reads = counted_reads(other)
        waiting = asyncio.create_task(many(elsewhere, ids, wait=30))
        await wait_until(lambda: watched(other) == 200 and len(reads) == 2, what="the wait sleeps")
        began = time.monotonic()
        await http.post(f"responses/{ids[117]}/cancel")
        entries = await waiting
        assert time.monotonic() - began < 2
        assert statuses(entries) == ["queued"] * 117 + ["cancelled"] + ["queued"] * 82
        assert reads == [200] * 3, "one to find them, one when the wait is registered, one when it was woken"
        await wait_until(lambda: watched(other) == 0, what="nobody is waited for any more")


def counted_reads(replica: Replica) -> list[int]:
    """Grows by the number of records of each read of many."""
    assert replica.context is not None
    responses = replica.context.store.responses
    find_many, counts = responses.find_many, []

    async def counting(ids: Any) -> Any:
        counts.append(len(ids))
        return await find_many(ids)

    responses.find_many = counting  # type: ignore[method-assign]
    return counts


async def test_a_wait_for_all_goes_on_until_the_last_of_many_ends_anywhere(simulator: str, store_url: str) -> None:
    config = make_config(simulator, worker_concurrency=0)
    async with (
        running_replica(config, store_url) as one,
        running_replica(config, store_url) as other,
        one.http() as http,
        other.http() as elsewhere,
    ):
        ids = await asyncio.gather(*(create(one, "never") for _ in range(20)))
        waiting = asyncio.create_task(many(elsewhere, ids, wait=30, until="all"))
        await wait_until(lambda: watched(other) == 20, what="the wait sleeps")
        for response_id in ids[:-1]:
            await http.post(f"responses/{response_id}/cancel")
        assert not waiting.done()
        await http.post(f"responses/{ids[-1]}/cancel")
        assert statuses(await waiting) == ["cancelled"] * 20


async def test_a_deleted_response_counts_as_ended(pollux: Replica) -> None:
    ids = [await create(pollux, LATER), await create(pollux, LATER)]
    async with pollux.http() as http:
        waiting = asyncio.create_task(many(http, ids, wait=30))
        await wait_until(lambda: watched(pollux) == 2, what="the wait sleeps")
        await http.delete(f"responses/{ids[0]}")
        entries = await waiting
        assert entries[0] == not_found(ids[0])
        assert statuses(entries)[1] in ("queued", "in_progress")


async def test_what_is_not_the_callers_is_not_found_and_nothing_to_wait_for(pollux: Replica) -> None:
    mine, native = await create(pollux, LATER), await create(pollux, LATER, NATIVE)
    ids = ["litellm_poll_00000000-0000-4000-8000-000000000000", "what?", mine, native]
    async with pollux.http(BOB) as bob, pollux.http() as alice, pollux.http(MASTER_KEY) as master:
        began = time.monotonic()
        assert [entry["status_code"] for entry in await many(bob, ids, wait=30, until="all")] == [404] * 4
        entries = await many(alice, ids, wait=30)
        assert entries[:2] == [not_found(one) for one in ids[:2]]
        assert set(statuses(entries[2:])) <= {"queued", "in_progress"}
        assert set(statuses((await many(master, ids))[2:])) <= {"queued", "in_progress"}
        assert time.monotonic() - began < 5


async def test_the_ids_may_come_as_arrays(pollux: Replica) -> None:
    ids = [await create(pollux, "one"), await create(pollux, "two")]
    async with pollux.http() as http:
        for name in ("ids", "ids[]"):
            answer = await http.get("responses", params=[(name, one) for one in ids])
            assert [entry["id"] for entry in (await answer.json())["data"]] == ids
        answer = await http.head("responses", params={"ids": ids[0], "wait": 30, "until": "all"})
        assert answer.status == 200


async def test_two_hundred_of_the_longest_usual_ids_fit_into_a_request(pollux: Replica) -> None:
    ids = [
        encode_composite(CompositeId("openai", f"{number:064}", f"resp_{number:048x}", f"{number:022}"))
        for number in range(200)
    ]
    async with pollux.http() as http:
        assert [entry["status_code"] for entry in await many(http, ids, wait=1)] == [404] * 200


BAD: dict[str, tuple[dict[str, str], str]] = {
    "no id": ({"ids": ""}, "ids"),
    "an empty part": ({"ids": "a,,b"}, "ids"),
    "a comma at the end": ({"ids": "a,"}, "ids"),
    "an id twice": ({"ids": "a,b,a"}, "ids"),
    "too many": ({"ids": ",".join(map(str, range(201)))}, "ids"),
    "an unknown until": ({"ids": "a", "until": "most"}, "until"),
    "a wait that is no number": ({"ids": "a", "wait": "long"}, "wait"),
    "a negative wait": ({"ids": "a", "wait": "-1"}, "wait"),
    "a cursor of the other list": ({"ids": "a", "after": "b"}, "after"),
    "a filter of the other list": ({"ids": "a", "status": "queued"}, "status"),
    "a length of the other list": ({"ids": "a", "limit": "3"}, "limit"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_question_about_many_that_makes_no_sense_is_refused(pollux: Replica, kind: str) -> None:
    query, param = BAD[kind]
    async with pollux.http() as http:
        answer = await http.get("responses", params=query)
        assert answer.status == 400
        error = (await answer.json())["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert param in error["message"]


async def test_a_client_that_hangs_up_is_waited_for_no_more(pollux: Replica) -> None:
    ids = [await create(pollux, LATER), await create(pollux, LATER, NATIVE)]
    async with pollux.http() as http:
        waiting = asyncio.create_task(many(http, ids, wait=30))
        await wait_until(lambda: watched(pollux) == 1, what="the wait sleeps")
        assert pollux.context is not None
        assert len(pollux.context.pollers._pollers) == 1
        waiting.cancel()
    await wait_until(lambda: watched(pollux) == 0, what="no response is watched")
    await wait_until(lambda: not pollux.context.pollers._pollers, what="no provider is asked")


# Waits that are longer than a connection may be silent.


@pytest.fixture
def _impatient_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.hold.BLANK_EVERY_S", 0.2)


@pytest.mark.usefixtures("_impatient_proxies")
async def test_a_long_wait_for_many_is_held_with_white_space(simulator: str, store_url: str) -> None:
    async with (
        running_replica(make_config(simulator, max_wait_s=0.3, max_hold_s=30), store_url) as pollux,
        pollux.http() as http,
    ):
        ids = [await create(pollux, "x [[first_delay_ms=1500]]"), await create(pollux, "quick", NATIVE)]
        answer = await http.get("responses", params={"ids": ",".join(ids), "wait": 25, "until": "all"})
        assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=25")
        raw = await answer.read()
        assert raw.startswith(b"  ")
        assert statuses(json.loads(raw)["data"]) == ["completed", "completed"]


@pytest.mark.parametrize("max_wait_s", [0.2, 50])
async def test_a_drain_answers_waits_for_many_with_the_current_states(
    simulator: str, store_url: str, max_wait_s: float
) -> None:
    async with running_replica(make_config(simulator, max_wait_s=max_wait_s), store_url) as pollux:
        assert pollux.context is not None
        ids = [await create(pollux, LATER), await create(pollux, LATER, NATIVE)]
        async with pollux.http() as http:
            waiting = asyncio.create_task(many(http, ids, wait=600, until="all"))
            await wait_until(lambda: watched(pollux) == 1, what="the wait sleeps")
            began = time.monotonic()
            pollux.context.phase.draining = True
            pollux.context.hub.drain()
            await pollux.context.pollers.drain()
            assert set(statuses(await waiting)) <= {"queued", "in_progress"}
            assert time.monotonic() - began < 2


async def test_the_death_of_the_replica_that_runs_them_ends_no_wait(
    simulator: str, store_url: str, tmp_path: Any
) -> None:
    config = make_config(simulator, lease_s=2)
    idle = {**config, "pollux": {**config["pollux"], "worker_concurrency": 0}}
    async with running_replica(idle, store_url) as other, other.http() as http:
        async with replica_process(config, store_url, tmp_path) as dying:
            ids = [await create(dying, "x [[first_delay_ms=1000]]") for _ in range(3)]
            waiting = asyncio.create_task(many(http, ids, wait=40, until="all"))
            await wait_until(lambda: watched(other) == 3, what="the wait sleeps")
            await dying.kill()
        async with replica_process(config, store_url, tmp_path):
            assert statuses(await waiting) == ["completed"] * 3


# Native responses and their providers.


@pytest.mark.parametrize("what", ["show", "cancel"])
async def test_however_many_hang_the_answer_comes_before_a_load_balancer_cuts_it(
    store_url: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    for name, value in (("FETCHED_WITHIN_S", 0.5), ("CANCELLED_WITHIN_S", 0.5), ("ALL_WITHIN_S", 0.7)):
        monkeypatch.setattr(f"server.api.many.{name}", value, raising=False)
    monkeypatch.setattr("server.responses.many.AT_ONCE", 1)

    async def provider(request: web.Request) -> web.Response:
        if request.path.endswith("/responses"):
            body = {"id": f"resp_{(await request.json())['input'] * 40}", "object": "response", "status": "queued"}
            return web.json_response(body)
        await asyncio.sleep(60)
        raise AssertionError

    async with (
        running_script(provider) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        ids = [await create(pollux, text, NATIVE) for text in "abcd"]
        began = time.monotonic()
        entries = await (many(http, ids) if what == "show" else cancelled(http, ids))
        assert time.monotonic() - began < 1.5
        assert [entry["status_code"] for entry in entries] == [504] * 4


async def test_a_provider_that_refuses_or_hangs_spoils_no_other_answer(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.many.FETCHED_WITHIN_S", 0.3)
    made: list[str] = []

    async def provider(request: web.Request) -> web.Response:
        if request.method == "POST":
            made.append(f"resp_{'abcd'[len(made)] * 40}")
            return web.json_response({"id": made[-1], "object": "response", "status": "queued", "output": []})
        match request.path[-1]:
            case "a":
                await asyncio.sleep(60)
            case "b":
                return web.json_response({"error": {"message": "Gone since long ago.", "code": "gone"}}, status=404)
            case "c":
                return web.Response(text="<html>Good day.</html>", content_type="text/html")
        return web.json_response({"id": made[-1], "object": "response", "status": "completed", "output": []})

    async with (
        running_script(provider) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        ids = [await create(pollux, "x", NATIVE) for _ in range(4)]
        began = time.monotonic()
        entries = await many(http, ids, wait=20)
        assert time.monotonic() - began < 5
        assert [entry.get("status_code", entry.get("status")) for entry in entries] == [504, 404, 502, "completed"]
        assert entries[0]["error"]["code"] == "upstream_timeout"
        assert entries[1]["error"]["code"] == "gone"
        assert entries[3]["id"] == ids[3]
        assert made[0] not in json.dumps(entries), "no id of the provider's own"


async def test_waits_for_many_share_the_loop_that_polls_a_native_response(pollux: Replica, simulator: str) -> None:
    native, cached = await create(pollux, "native [[first_delay_ms=1500]]", NATIVE), await create(pollux, LATER)
    async with pollux.http() as http:
        alone = asyncio.create_task(http.get(f"responses/{native}?wait=20"))
        for entries in await asyncio.gather(*(many(http, [cached, native], wait=20) for _ in range(10))):
            assert entries[1]["status"] == "completed"
        assert (await (await alone).json())["status"] == "completed"
        seen = await seen_by(simulator)
    assert len([request for request in seen["requests"] if request["method"] == "GET"]) < 11 + 6


# Cancelling.


async def test_many_are_cancelled_at_once_and_each_refusal_stands_in_its_place(pollux: Replica, simulator: str) -> None:
    running = await create(pollux, "long [[words=500]] [[delay_ms=20]]")
    again, done = await create(pollux, LATER), await create(pollux, "quick")
    native, native_done = await create(pollux, LATER, NATIVE), await create(pollux, "quick", NATIVE)
    unknown = "litellm_poll_00000000-0000-4000-8000-000000000000"
    async with pollux.http(BOB) as bob, pollux.http() as http:
        await with_output(pollux, running)
        answer = await http.post(
            "responses",
            json={"model": CACHED, "input": "hi", "background": True},
            headers={"Authorization": f"Bearer {BOB}"},
        )
        bobs = (await answer.json())["id"]
        await http.post(f"responses/{again}/cancel")
        for ending in (done, native_done):
            await http.get(f"responses/{ending}?wait=10")
        ids = [done, running, unknown, native, bobs, again, native_done]
        entries = await cancelled(http, ids)
        assert statuses(entries) == ["error", "cancelled", "error", "cancelled", "error", "cancelled", "error"]
        assert entries[0]["status_code"] == 400
        assert entries[0]["error"]["message"] == "Cannot cancel a completed response."
        assert entries[1]["output"], "what had arrived is kept"
        assert entries[2] == not_found(unknown)
        assert entries[4] == not_found(bobs)
        assert entries[6]["status_code"] == 400
        assert entries[1] == await (await http.get(f"responses/{running}")).json()
        assert (await (await bob.get(f"responses/{bobs}?wait=10")).json())["status"] == "completed"

    async def closed() -> bool:
        return bool((await seen_by(simulator))["aborted"] >= 1)

    await wait_until(closed, timeout_s=2, what="the provider's socket is closed")


async def test_a_response_that_can_not_be_cancelled_hinders_no_other(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with (
        running_replica(make_config(simulator, worker_concurrency=0), store_url) as pollux,
        pollux.http() as http,
    ):
        ids = [await create(pollux, "never") for _ in range(3)]
        log = Shard(0).log(ids[1])
        admin.delete(log)
        admin.set(log, "no stream", ex=60)
        entries = await cancelled(http, ids)
        assert statuses(entries) == ["cancelled", "error", "cancelled"]
        assert entries[1]["status_code"] == 500
        admin.delete(Shard(0).record(ids[1]))


async def test_a_part_of_the_store_that_is_away_hinders_only_what_lies_there(
    simulator: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(simulator, worker_concurrency=0, shards=16)
    async with running_replica(config, store_url) as pollux, pollux.http(MASTER_KEY) as master:
        assert pollux.context is not None
        store = pollux.context.store
        find_many = store.responses.find_many
        ids = []
        for key in (ALICE, BOB, ALICE):
            body = {"model": CACHED, "input": "never", "background": True}
            answer = await master.post("responses", json=body, headers={"Authorization": f"Bearer {key}"})
            ids.append((await answer.json())["id"])
        away = store.jobs.shards.of(ids[1])
        assert away != store.jobs.shards.of(ids[0])

        async def find_some(some: Any) -> Any:
            if any(store.jobs.shards.of(one) == away for one in some):
                raise StoreUnavailable
            return await find_many(some)

        monkeypatch.setattr(store.responses, "find_many", find_some)
        entries = await cancelled(master, ids)
        assert statuses(entries) == ["cancelled", "error", "cancelled"]
        assert (entries[1]["status_code"], entries[1]["error"]["code"]) == (503, "service_unavailable")
        answer = await master.get("responses", params={"ids": ",".join(ids)})
        assert answer.status == 503
        assert answer.headers["Retry-After"]


BAD_BODIES: dict[str, tuple[bytes, str | None]] = {
    "no ids": (b"{}", "ids"),
    "null": (b'{"ids":null}', "ids"),
    "one id alone": (b'{"ids":"a"}', "ids"),
    "an empty list": (b'{"ids":[]}', "ids"),
    "a number": (b'{"ids":["a",7]}', "ids[1]"),
    "an empty id": (b'{"ids":["a",""]}', "ids"),
    "an id twice": (b'{"ids":["a","a"]}', "ids"),
    "too many": (json.dumps({"ids": [str(number) for number in range(201)]}).encode(), "ids"),
    "no JSON": (b"ids=a", None),
    "no body": (b"", None),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_a_cancellation_of_many_that_makes_no_sense_is_refused(pollux: Replica, kind: str) -> None:
    body, param = BAD_BODIES[kind]
    async with pollux.http() as http:
        answer = await http.post("responses/cancel", data=body)
        assert answer.status == 400
        error = (await answer.json())["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("prefix", ["/v1", "", "/openai/v1", "/openai", f"/openai/deployments/{CACHED}"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_path_that_cancels_many_is_not_taken_for_an_id(pollux: Replica, prefix: str, slash: str) -> None:
    response_id = await create(pollux, LATER)
    headers = {"Authorization": f"Bearer {ALICE}"}
    async with aiohttp.ClientSession(pollux.url, headers=headers) as http:
        answer = await http.post(f"{prefix}/responses/cancel{slash}", json={"ids": [response_id]})
        assert answer.status == 200
        assert statuses((await answer.json())["data"]) == ["cancelled"]
        assert (await http.get(f"{prefix}/responses/cancel{slash}")).status == 404
