"""Status subscribers: `GET /v1/events` tells of each change of a response's status, once, to whoever may see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest
import redis
from aiohttp import web

from tests.support.refusals import refusal
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    create,
    ended,
    make_config,
    running_replica,
)
from tests.support.subscribers import Feed, faults_of, lives_in, subscribed
from tests.support.upstreams import running_script


def told(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["data"]["id"]) for event in events]


LIFE = ["response.queued", "response.in_progress", "response.completed"]


async def test_a_subscriber_hears_the_life_of_a_response(pollux: Replica) -> None:
    async with pollux.http() as http, subscribed(http) as feed:
        response_id = await create(pollux, "hi", metadata={"order": "17"})
        events = await feed.take(3)
        response = await ended(http, response_id)
    assert told(events) == [(kind, response_id) for kind in LIFE]
    last = events[-1]
    assert last["object"] == "event"
    assert abs(last["created_at"] - response["completed_at"]) <= 1
    assert last["data"] == {"id": response_id, "status": "completed", "model": CACHED, "metadata": {"order": "17"}}
    assert len({event["id"] for event in events}) == 3


async def test_every_end_and_a_delete_are_told(pollux: Replica) -> None:
    async with pollux.http() as http, subscribed(http) as feed:
        for text, kind in (("[[fail=1]]", "failed"), ("[[incomplete=1]]", "incomplete")):
            response_id = await create(pollux, text)
            assert told(await feed.take(3))[-1] == (f"response.{kind}", response_id)
        running = await create(pollux, "[[first_delay_ms=30000]]")
        await feed.take(2)
        await http.post(f"responses/{running}/cancel")
        await http.delete(f"responses/{running}")
        assert told(await feed.take(2)) == [("response.cancelled", running), ("response.deleted", running)]


async def test_every_subscriber_on_every_replica_gets_the_same_events(simulator: str, store_url: str) -> None:
    config = make_config(simulator)
    async with (
        running_replica(config, store_url) as one,
        running_replica(config, store_url) as other,
        one.http() as http_one,
        other.http() as http_other,
        subscribed(http_one) as first,
        subscribed(http_other) as second,
    ):
        await create(one, "a")
        await create(other, "b")
        assert sorted(told(await first.take(6))) == sorted(told(await second.take(6)))
        assert first.events == second.events


async def test_a_subscriber_goes_on_where_it_was_on_another_replica(simulator: str, store_url: str) -> None:
    config = make_config(simulator)
    async with running_replica(config, store_url) as one, running_replica(config, store_url) as other:
        async with one.http() as http, subscribed(http) as feed:
            first = await create(one, "a")
            await feed.take(2)
            await ended(http, first)
        second = await create(one, "b")
        async with other.http() as http:
            await ended(http, second)
            async with subscribed(http, last_id=feed.last_id) as resumed:
                assert told(await resumed.take(4)) == [
                    ("response.completed", first),
                    *((kind, second) for kind in LIFE),
                ]
            # A browser that makes its own requests can't set the header.
            async with subscribed(http, f"?last_event_id={quote(feed.last_id)}") as by_parameter:
                assert await by_parameter.take(4) == resumed.events


async def test_the_first_block_has_an_id_so_that_nothing_is_lost_before_the_first_event(pollux: Replica) -> None:
    async with pollux.http() as http:
        async with subscribed(http) as feed:
            assert feed.last_id
        response_id = await create(pollux, "a")
        async with subscribed(http, last_id=feed.last_id) as resumed:
            assert told(await resumed.take(3)) == [(kind, response_id) for kind in LIFE]


# Who may see what.


async def test_a_key_hears_of_its_own_responses_and_the_master_of_all(pollux: Replica) -> None:
    async with (
        pollux.http(ALICE) as alice,
        pollux.http(BOB) as bob,
        pollux.http(MASTER_KEY) as master,
        subscribed(alice) as hers,
        subscribed(bob) as his,
        subscribed(master) as everybodys,
    ):
        mine = await create(pollux, "a")
        answer = await bob.post("responses", json={"model": CACHED, "input": "b", "background": True})
        theirs = (await answer.json())["id"]
        assert {one for _, one in told(await hers.take(3))} == {mine}
        assert {one for _, one in told(await his.take(3))} == {theirs}
        events = await everybodys.take(6)
        assert {one for _, one in told(events)} == {mine, theirs}
        assert {event["data"]["owner"] for event in events} == {"alice", "bob"}
        assert all("owner" not in event["data"] for event in (*hers.events, *his.events))
        assert {event["id"] for event in events} == {event["id"] for event in (*hers.events, *his.events)}


async def test_without_a_key_nothing_is_told(pollux: Replica) -> None:
    async with pollux.http(None) as http:
        assert (await refusal(await http.get("events"))).status == 401


async def test_the_masters_cursor_spans_all_shards(simulator: str, store_url: str) -> None:
    config = make_config(simulator, shards=16)
    async with running_replica(config, store_url) as pollux, pollux.http(MASTER_KEY) as master:
        async with subscribed(master) as feed:
            await create(pollux, "a")
            await feed.take(2)
        async with pollux.http(BOB) as bob:
            answer = await bob.post("responses", json={"model": CACHED, "input": "b", "background": True})
            await ended(bob, (await answer.json())["id"])
        async with subscribed(master, last_id=feed.last_id) as resumed:
            rest = await resumed.take(4)
        assert len({event["id"] for event in (*feed.events, *rest)}) == 6


# What is told.


async def test_types_and_models_narrow_it(pollux: Replica) -> None:
    async with (
        pollux.http() as http,
        subscribed(http, "?types=response.completed,response.failed") as ends,
        subscribed(http, "?types=response.failed&types=response.queued") as others,
        subscribed(http, "?model=nobody") as none,
        subscribed(http, f"?model={CACHED}&types=response.queued") as queued,
    ):
        one = await create(pollux, "a")
        two = await create(pollux, "[[fail=1]]")
        assert sorted(told(await ends.take(2))) == sorted([("response.completed", one), ("response.failed", two)])
        assert {kind for kind, _ in told(await others.take(3))} == {"response.failed", "response.queued"}
        assert told(await queued.take(2)) == [("response.queued", one), ("response.queued", two)]
        assert none.events == []


async def test_about_one_response_it_begins_with_its_status_and_ends_with_it(pollux: Replica) -> None:
    async with pollux.http() as http:
        response_id = await create(pollux, "[[words=20]] [[delay_ms=20]]")
        async with subscribed(http, f"?response_id={response_id}") as feed:
            assert told(await feed.rest())[-1] == ("response.completed", response_id)
        ranks = [LIFE.index(event["type"]) for event in feed.events]
        assert ranks == sorted(set(ranks))
        async with subscribed(http, f"?response_id={response_id}") as again:
            assert await again.rest() == feed.events[-1:], "the same event, with the same id"


async def test_about_several_it_ends_when_all_have_ended(pollux: Replica) -> None:
    async with pollux.http() as http:
        ids = [await create(pollux, f"[[words={n}]] [[delay_ms=20]]") for n in (1, 15, 30)]
        deleted = await create(pollux, "[[first_delay_ms=30000]]")
        other = await create(pollux, "not asked for")
        query = "&".join(f"response_id={one}" for one in (*ids, deleted))
        async with subscribed(http, f"?{query}") as feed:
            await feed.take(1)
            await http.delete(f"responses/{deleted}")
            await feed.rest()
    ends = [one for kind, one in told(feed.events) if kind in ("response.completed", "response.deleted")]
    assert sorted(ends) == sorted((*ids, deleted))
    assert len({event["id"] for event in feed.events}) == len(feed.events)
    assert other not in {one for _, one in told(feed.events)}


async def test_resumed_about_one_response_it_repeats_nothing_and_still_ends(pollux: Replica) -> None:
    async with pollux.http() as http:
        response_id = await create(pollux, "[[words=20]] [[delay_ms=20]]")
        async with subscribed(http, f"?response_id={response_id}") as feed:
            await feed.take(1)
        async with subscribed(http, f"?response_id={response_id}", feed.last_id) as resumed:
            rest = await resumed.rest()
        assert rest[-1]["type"] == "response.completed"
        assert feed.events[0] not in rest
        async with subscribed(http, f"?response_id={response_id}", resumed.last_id) as over:
            assert await over.rest() == [], "all was told, and it is over"


async def test_cut_off_among_the_present_it_is_told_the_rest_when_it_resumes(pollux: Replica) -> None:
    async with pollux.http() as http:
        ids = [await create(pollux, text) for text in ("a", "b", "c")]
        for one in ids:
            await ended(http, one)
        query = "?response_id=" + ",".join(ids)
        async with subscribed(http, query) as feed:
            assert feed.last_id == "", "nothing is told yet, so there is nothing to go on behind"
            await feed.take(1)
        async with subscribed(http, query, feed.last_id) as resumed:
            await resumed.rest()
    ends = [event for event in (*feed.events, *resumed.events) if event["type"] == "response.completed"]
    assert sorted(event["data"]["id"] for event in ends) == sorted(ids)
    assert len({event["id"] for event in (*feed.events, *resumed.events)}) == len(feed.events) + len(resumed.events)


async def test_resumed_about_several_it_tells_that_one_was_deleted_meanwhile_and_goes_on_about_the_others(
    pollux: Replica,
) -> None:
    async with pollux.http() as http:
        kept, deleted = [await create(pollux, "[[words=30]] [[delay_ms=20]]") for _ in "ab"]
        query = f"?response_id={kept}&response_id={deleted}"
        async with subscribed(http, query) as feed:
            await feed.take(2)
        await http.delete(f"responses/{deleted}")
        async with subscribed(http, query, feed.last_id) as resumed:
            while ("response.deleted", deleted) not in told(resumed.events):
                await resumed.take(1)
        async with subscribed(http, query, resumed.last_id) as again:
            await again.rest()
        events = [*feed.events, *resumed.events, *again.events]
        assert faults_of(events) == []
        assert lives_in(events)[kept][-1] == "response.completed"
        assert told(again.events).count(("response.deleted", deleted)) == 0, "it was told"


async def test_a_cursor_opens_nobody_elses_response_and_does_not_tell_whether_there_is_one(pollux: Replica) -> None:
    async with pollux.http() as http, pollux.http(BOB) as bob:
        async with subscribed(bob) as feed:
            pass
        hers = await create(pollux, "a")
        await ended(http, hers)
        for one in (hers, f"litellm_poll_{uuid4()}"):
            async with subscribed(bob, f"?response_id={one}", feed.last_id) as prying:
                assert await prying.rest() == []


async def test_cut_off_among_the_present_of_several_shards_the_master_is_told_the_rest(
    simulator: str, store_url: str
) -> None:
    config = make_config(simulator, shards=16)
    async with running_replica(config, store_url) as pollux, pollux.http() as alice, pollux.http(BOB) as bob:
        hers = await create(pollux, "a")
        his = (await (await bob.post("responses", json={"model": CACHED, "input": "b", "background": True})).json())[
            "id"
        ]
        await ended(alice, hers)
        await ended(bob, his)
        query = f"?response_id={his},{hers}"
        async with pollux.http(MASTER_KEY) as master:
            async with subscribed(master, query) as feed:
                await feed.take(1)
            async with subscribed(master, query, feed.last_id) as resumed:
                rest = await resumed.rest()
    assert {one for kind, one in told([*feed.events, *rest]) if kind == "response.completed"} == {hers, his}
    assert faults_of([*feed.events, *rest]) == []


@pytest.mark.parametrize(
    "answer", ["[]", "null", "hello", '{"status": "in_progress"', '{"id": "resp_1", "status": 7}', '{"id": "resp_1"}']
)
async def test_who_follows_what_a_provider_does_not_tell_of_is_cut_off(store_url: str, answer: str) -> None:
    async with subscribed_to_native(store_url, answer) as feed:
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(feed.rest(), 5)
        assert feed.events == []


@pytest.mark.parametrize("at", ['"x"', "1e400", "null", "-1", "[]"])
async def test_a_native_response_ends_whenever_its_provider_says_that_was(store_url: str, at: str) -> None:
    answer = f'{{"id": "resp_1", "status": "completed", "completed_at": {at}, "model": 7, "metadata": [1]}}'
    async with subscribed_to_native(store_url, answer) as feed:
        [event] = await asyncio.wait_for(feed.rest(), 5)
    assert event["type"] == "response.completed"
    assert abs(event["created_at"] - time.time()) < 60
    assert event["data"]["model"] is None


async def test_a_key_with_models_is_told_of_a_native_response_whatever_its_provider_calls_the_model(
    store_url: str,
) -> None:
    answer = f'{{"id": "resp_1", "status": "completed", "completed_at": 7, "model": "{NATIVE}-2026-01-31"}}'
    keys = [{"name": "alice", "key": ALICE, "models": [NATIVE]}]
    async with subscribed_to_native(store_url, answer, keys=keys) as feed:
        [event] = await asyncio.wait_for(feed.rest(), 5)
    assert event["data"]["model"] == f"{NATIVE}-2026-01-31"


@asynccontextmanager
async def subscribed_to_native(store_url: str, answer: str, **pollux: Any) -> AsyncIterator[Feed]:
    """A subscriber to a native response, of which its provider tells this."""

    async def provider(request: web.Request) -> web.StreamResponse:
        created = '{"id": "resp_1", "object": "response", "status": "queued", "output": []}'
        text = created if request.method == "POST" else answer
        return web.Response(text=text, content_type="application/json")

    async with (
        running_script(provider) as upstream,
        running_replica(make_config(upstream.base_url, **pollux), store_url) as replica,
        replica.http() as http,
    ):
        native = await create(replica, "hi", NATIVE)
        async with subscribed(http, f"?response_id={quote(native, safe='')}") as feed:
            yield feed


async def test_native_responses_are_told_of_too(pollux: Replica) -> None:
    async with pollux.http() as http:
        native = await create(pollux, "[[first_delay_ms=1200]]", NATIVE)
        cached = await create(pollux, "a")
        query = f"?response_id={quote(native, safe='')}&response_id={cached}"
        async with subscribed(http, query) as feed:
            await feed.rest()
    assert [kind for kind, one in told(feed.events) if one == native][-1] == "response.completed"
    assert len([1 for _, one in told(feed.events) if one == native]) >= 2
    assert ("response.completed", cached) in told(feed.events)


async def test_the_wait_of_a_shell_script_ends(pollux: Replica) -> None:
    """`curl -N` on one response: the command returns when it has ended."""
    response_id = await create(pollux, "[[words=5]]")
    url = f"{pollux.url}/v1/events?response_id={response_id}"
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sSN", "-H", f"Authorization: Bearer {ALICE}", url), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(curl.communicate(), 20)
    assert curl.returncode == 0
    assert b"event: response.completed\n" in out


# Bad input.


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("?types=response.finished", 400, "types"),
        ("?last_event_id=yesterday", 400, "last_event_id"),
        ("?last_event_id=0:1-1.x", 400, "last_event_id"),
        ("?response_id=litellm_poll_nobody", 404, None),
        ("?response_id=" + ",".join(f"litellm_poll_{n}" for n in range(201)), 400, "response_id"),
    ],
)
async def test_bad_input_is_refused_before_the_stream_begins(
    pollux: Replica, query: str, status: int, param: str | None
) -> None:
    async with pollux.http() as http:
        answer = await refusal(await http.get(f"events{query}"))
        assert (answer.status, answer.param) == (status, param)


async def test_somebody_elses_response_is_not_found(pollux: Replica) -> None:
    response_id = await create(pollux, "a")
    async with pollux.http(BOB) as bob:
        assert (await refusal(await bob.get(f"events?response_id={response_id}"))).status == 404


async def test_a_cursor_that_is_older_than_what_is_kept_gets_a_gap_and_goes_on(
    pollux: Replica, admin: redis.Redis
) -> None:
    async with pollux.http() as http:
        async with subscribed(http) as feed:
            await create(pollux, "a")
            await feed.take(3)
        for _ in range(3):
            await ended(http, await create(pollux, "b"))
        assert pollux.context is not None
        shard = pollux.context.store.feed.shards.of("alice")
        admin.xtrim(shard.feed, maxlen=4, approximate=False)
        async with subscribed(http, last_id=feed.last_id) as resumed:
            gap, *rest = await resumed.take(5)
            assert gap["type"] == "feed.gap"
            assert [event["type"] for event in rest] == [LIFE[-1], *LIFE]
        # The oldest that is kept is named by its cursor.
        assert gap["data"]["oldest"].startswith(f"{shard.n}:")
        async with subscribed(http, last_id=resumed.last_id) as later:
            new = await create(pollux, "c")
            assert told(await later.take(3)) == [(kind, new) for kind in LIFE], "and no gap any more"


async def test_a_quiet_subscriber_gets_heartbeats_that_move_its_cursor(
    pollux: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.api.sse.HEARTBEAT_S", 0.3)
    monkeypatch.setattr("server.api.events.HEARTBEAT_S", 0.3)
    async with pollux.http(BOB) as bob, subscribed(bob) as quiet:
        before = quiet.last_id
        await create(pollux, "somebody else's")
        async for fields in quiet._blocks():
            assert set(fields) == {"id"}
            if fields["id"] != before:
                break


async def test_when_the_process_stops_subscribers_are_cut_off_and_do_not_end(simulator: str, store_url: str) -> None:
    config = make_config(simulator)
    async with running_replica(config, store_url) as pollux, pollux.http() as http, subscribed(http) as feed:
        assert pollux.context is not None
        pollux.context.hub.close()
        with pytest.raises(aiohttp.ClientPayloadError):
            await feed.rest()


async def test_a_crowd_of_subscribers_of_one_key_hears_the_same(pollux: Replica) -> None:
    feeds: list[Feed] = []
    async with pollux.http() as http, asyncio.TaskGroup() as group:
        heard: list[list[dict[str, Any]]] = []

        async def listen() -> None:
            async with subscribed(http) as feed:
                feeds.append(feed)
                if len(feeds) == 90:
                    everybody.set()
                heard.append(await feed.take(3))

        everybody = asyncio.Event()
        for _ in range(90):
            group.create_task(listen())
        await everybody.wait()
        await create(pollux, "a")
    assert len(heard) == 90
    assert all(events == heard[0] for events in heard)
