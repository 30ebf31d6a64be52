"""The store fails: records vanish, connections break, the server dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest
import redis

from storage import End
from tests.conftest import plain_url
from tests.support.replica import CACHED, Replica, create, ended, make_config, running_replica, with_output
from tests.support.sse import events_of
from tests.support.upstreams import nothing_open, seen_by
from tests.support.waiting import wait_until


def sleeping(replica: Replica) -> int:
    assert replica.context is not None
    watches = replica.context.hub._watches
    return sum(len(sleepers) for topic, sleepers in watches.items() if isinstance(topic, End))


async def test_a_record_deleted_by_hand_under_a_waiter_is_404_within_a_second(
    pollux: Replica, admin: redis.Redis
) -> None:
    response_id = await create(pollux, "[[first_delay_ms=30000]]")
    async with pollux.http() as http:
        waiting = asyncio.create_task(http.get(f"responses/{response_id}?wait=30"))
        await wait_until(lambda: sleeping(pollux) == 1, what="it sleeps")
        began = time.monotonic()
        admin.delete(f"pollux:{{0}}:record:{response_id}")
        assert (await waiting).status == 404
        assert time.monotonic() - began < 1


async def test_a_record_that_expires_under_a_waiter_is_404(pollux: Replica, admin: redis.Redis) -> None:
    response_id = await create(pollux, "[[first_delay_ms=30000]]")
    async with pollux.http() as http:
        waiting = asyncio.create_task(http.get(f"responses/{response_id}?wait=30"))
        await wait_until(lambda: sleeping(pollux) == 1, what="it sleeps")
        admin.pexpire(f"pollux:{{0}}:record:{response_id}", 50)
        assert (await asyncio.wait_for(waiting, 5)).status == 404


@pytest.mark.whole_server
async def test_the_pubsub_connection_killed_under_a_hundred_waiters_loses_nobody(
    pollux: Replica, admin: redis.Redis
) -> None:
    # At once: the first one must not have ended before the last one sleeps.
    ids = await asyncio.gather(*(create(pollux, f"{n} [[first_delay_ms=4000]]") for n in range(100)))
    async with pollux.http() as http:
        waiting = [asyncio.create_task(http.get(f"responses/{one}?wait=30")) for one in ids]
        await wait_until(lambda: sleeping(pollux) == 100, what="all sleep")
        assert admin.client_kill_filter(_type="pubsub") >= 1
        began = time.monotonic()
        answers = await asyncio.gather(*waiting)
        assert {(await answer.json())["status"] for answer in answers} == {"completed"}
        assert time.monotonic() - began < 11, "within one sweep"


async def test_notifications_that_never_come_cost_a_sweep_and_no_more(
    simulator: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hub.SWEEP_S", 0.5)
    monkeypatch.setattr("server.hub.Hub.heard", lambda *_args: None)
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, "deaf [[first_delay_ms=700]]")
        answer = await asyncio.wait_for(http.get(f"responses/{response_id}?wait=30"), 15)
        assert (await answer.json())["status"] == "completed"


@pytest.fixture
def own_store(tmp_path: Path) -> str:
    """A store that may be killed: nobody else's."""
    return f"embedded://{tmp_path / 'store'}"


def server_pid(store_url: str) -> int:
    with redis.Redis.from_url(plain_url(store_url)) as client:
        return int(client.info("server")["process_id"])


async def test_running_jobs_waits_and_streams_survive_the_death_of_the_server(simulator: str, own_store: str) -> None:
    async with running_replica(make_config(simulator), own_store) as pollux, pollux.http() as http:
        ids = [await create(pollux, f"job {n} [[words=60]] [[delay_ms=50]]") for n in range(50)]
        waiting = [asyncio.create_task(http.get(f"responses/{one}?wait=50")) for one in ids]
        body = {"model": CACHED, "input": "s [[words=60]] [[delay_ms=50]]", "background": True, "stream": True}
        events = events_of(await http.post("responses", json=body))
        seen = [await anext(events) for _ in range(6)]
        # What is not yet on disk is lost with the server (appendfsync everysec): wait until it is.
        with redis.Redis.from_url(plain_url(own_store)) as client:
            client.execute_command("WAITAOF", 1, 0, 5000)
        os.kill(server_pid(own_store), signal.SIGKILL)

        answers = await asyncio.gather(*waiting)
        responses = [await answer.json() for answer in answers]
        assert [response["status"] for response in responses] == ["completed"] * 50
        for number, response in enumerate(responses):
            assert f"job {number} " in response["output"][0]["content"][0]["text"]
        seen += [event async for event in events]
        assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
        assert seen[-1]["type"] == "response.completed"


async def test_without_its_store_it_says_503_and_when_to_come_back(
    simulator: str, own_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.connection.ANSWER_TIMEOUT_S", 0.3)
    async with running_replica(make_config(simulator), own_store) as pollux, pollux.http() as http:
        done = await create(pollux, "before")
        await http.get(f"responses/{done}?wait=10")
        pid = server_pid(own_store)
        os.kill(pid, signal.SIGSTOP)
        try:
            body = {"model": CACHED, "input": "during", "background": True}
            for answer in (await http.post("responses", json=body), await http.get(f"responses/{done}")):
                assert answer.status == 503
                assert answer.headers["Retry-After"]
                assert (await answer.json())["error"]["code"] == "service_unavailable"
            assert (await http.get(f"{pollux.url}/readyz")).status == 503
            assert (await http.get(f"{pollux.url}/livez")).status == 200
            proxied = await http.post("responses", json={"model": CACHED, "input": "needs no store"})
            assert proxied.status == 200
        finally:
            os.kill(pid, signal.SIGCONT)
        await wait_until(lambda: ready(http, pollux), what="it is ready again")
        assert (await http.get(f"responses/{done}")).status == 200
        # The create that was answered with 503 ran when the server went on: it is taken back.
        await wait_until(lambda: listed(http, 1), what="only the first response is left")


async def test_without_its_store_it_limits_no_request_that_needs_none(
    simulator: str, own_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.connection.ANSWER_TIMEOUT_S", 0.3)
    config = make_config(simulator)
    config["pollux"]["keys"][0]["requests_per_minute"] = 1
    proxied = {"model": CACHED, "input": "needs no store"}
    async with running_replica(config, own_store) as pollux, pollux.http() as http:
        assert (await http.post("responses", json=proxied)).status == 200
        assert (await http.post("responses", json=proxied)).status == 429
        pid = server_pid(own_store)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert (await http.post("responses", json=proxied)).status == 200
            assert (await http.post("responses", json={**proxied, "background": True})).status == 503
        finally:
            os.kill(pid, signal.SIGCONT)
        await wait_until(lambda: ready(http, pollux), what="it is ready again")
        assert (await http.post("responses", json=proxied)).status == 429


async def ready(http: aiohttp.ClientSession, pollux: Replica) -> bool:
    return (await http.get(f"{pollux.url}/readyz")).status == 200


async def listed(http: aiohttp.ClientSession, count: int) -> bool:
    answer = await http.get("responses")
    return answer.status == 200 and len((await answer.json())["data"]) == count


async def test_a_pause_of_the_server_longer_than_we_wait_costs_no_run(
    simulator: str, own_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server runs what it got when it goes on: appends whose answer nobody waited for any more, leases too."""
    monkeypatch.setattr("storage.connection.ANSWER_TIMEOUT_S", 0.3)
    config = make_config(simulator, lease_s=1)
    async with running_replica(config, own_store) as pollux, pollux.http() as http:
        ids = [await create(pollux, f"job {n} [[words=80]] [[delay_ms=40]]", stream=n % 2 == 0) for n in range(12)]
        for one in ids:
            await with_output(pollux, one)
        pid = server_pid(own_store)
        for _ in range(2):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(1.5)  # longer than a lease, and than several calls: the fault itself
            os.kill(pid, signal.SIGCONT)
            await wait_until(lambda: ready(http, pollux), what="it is ready again")
        answers = [await http.get(f"responses/{one}?wait=30") for one in ids]
        responses = [await answer.json() for answer in answers]
        assert [response["status"] for response in responses] == ["completed"] * 12
        assert [answer.headers["ETag"].startswith('"1.') for answer in answers] == [True] * 12, "none ran twice"
        seen = await seen_by(simulator)
    assert seen["count"] == 12


async def test_an_upstream_that_breaks_while_the_store_is_away_fails_its_response_and_no_more(
    simulator: str, own_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.connection.ANSWER_TIMEOUT_S", 0.2)
    async with running_replica(make_config(simulator), own_store) as pollux, pollux.http() as http:
        response_id = await create(pollux, "half a story [[cut_after=20]] [[delay_ms=50]]")
        await with_output(pollux, response_id)
        pid = server_pid(own_store)
        os.kill(pid, signal.SIGSTOP)
        await wait_until(lambda: nothing_open(simulator), what="the provider's connection is broken")
        os.kill(pid, signal.SIGCONT)
        response = await ended(http, response_id)
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert "half" in str(response["output"])
    assert response["model"] == CACHED


async def test_a_record_broken_by_hand_is_as_good_as_deleted_and_hurts_nobody_else(
    simulator: str, store_url: str, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hub.SWEEP_S", 0.2)
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        broken = ""
        for field in ("created_at", "epoch", "owner", "last"):
            broken = await create(pollux, "[[first_delay_ms=30000]]")
            waiting = asyncio.create_task(http.get(f"responses/{broken}?wait=10"))
            await wait_until(lambda: sleeping(pollux) == 1, what="it sleeps")
            admin.hdel(f"pollux:{{0}}:record:{broken}", field)
            assert (await asyncio.wait_for(waiting, 5)).status == 404
        admin.publish(f"pollux:{{0}}:moved:{broken}", "nonsense")
        fine = await create(pollux, "fine")
        assert (await (await http.get(f"responses/{fine}?wait=10")).json())["status"] == "completed"


async def test_responses_deleted_as_soon_as_they_are_created_leave_no_run_behind(pollux: Replica) -> None:
    assert pollux.context is not None
    async with pollux.http() as http:

        async def create_and_delete() -> None:
            for _ in range(10):
                response_id = await create(pollux, "gone [[first_delay_ms=30000]]")
                await http.delete(f"responses/{response_id}")

        await asyncio.gather(*(create_and_delete() for _ in range(20)))
        worker = pollux.context.worker
        await wait_until(lambda: worker.active == 0, what="no slot is taken")


async def test_events_that_a_failover_lost_are_sent_again(pollux: Replica, admin: redis.Redis) -> None:
    """What a failover to a replica that lags does: the record and the log are as they were a moment ago."""
    response_id = await create(pollux, "tail [[words=60]] [[delay_ms=30]]", stream=True)
    record, log = (f"pollux:{{0}}:{kind}:{response_id}" for kind in ("record", "log"))
    await wait_until(lambda: int(admin.hget(record, "last") or 0) > 10, what="some events are stored")
    lose = """local all = redis.call('XRANGE', KEYS[2], '-', '+')
        redis.call('DEL', KEYS[2])
        for i = 1, #all - 2 do redis.call('XADD', KEYS[2], all[i][1], unpack(all[i][2])) end
        redis.call('HDEL', KEYS[1], 'base', 'provider_id', 'deployment')
        return redis.call('HSET', KEYS[1], 'last', string.match(all[#all - 2][1], '%d+$'))"""
    admin.eval(lose, 2, record, log)
    async with pollux.http() as http:
        response = await (await http.get(f"responses/{response_id}?wait=20")).json()
        assert response["status"] == "completed"
        events = [event async for event in events_of(await http.get(f"responses/{response_id}?stream=true"))]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == response["output"][0]["content"][0]["text"]
    assert admin.hget(record, "provider_id"), "what was noted with them is noted again"


async def test_a_crowd_that_waits_for_itself_is_no_absence_of_the_store(
    simulator: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand creates at one instant take far longer than the store's deadline, and each is answered."""
    monkeypatch.setattr("storage.connection.ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr("storage.connection.POOL_SIZE", 2)
    config = make_config(simulator, worker_concurrency=0)
    async with running_replica(config, store_url) as pollux, pollux.http() as http:
        body = {"model": CACHED, "input": "x", "background": True}
        answers = await asyncio.gather(*(http.post("responses", json=body) for _ in range(1000)))
        assert {answer.status for answer in answers} == {200}
