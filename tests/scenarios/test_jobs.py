"""Where is my response? `GET /v1/jobs` tells what has become of each, and what a job has lived through."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.refusals import refusal
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    MASTER_KEY,
    Replica,
    ended,
    make_config,
    replica_process,
    running_replica,
)
from tests.support.waiting import wait_until


async def ask(replica: Replica, path: str, key: str = ALICE, **query: Any) -> dict[str, Any]:
    async with replica.http(key) as http:
        answer = await http.get(path, params=query)
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
    return found


async def ids(replica: Replica, key: str = ALICE, **query: Any) -> list[str]:
    return [job["id"] for job in (await ask(replica, "jobs", key, **query))["data"]]


async def made(replica: Replica, text: str = "Hello!", key: str = ALICE, **fields: Any) -> str:
    """A response that has ended; its id."""
    response_id = await begun(replica, text, key, **fields)
    async with replica.http(key) as http:
        await ended(http, response_id)
    return response_id


async def begun(replica: Replica, text: str, key: str = ALICE, **fields: Any) -> str:
    """A background response; its id."""
    async with replica.http(key) as http:
        answer = await http.post("responses", json={"model": CACHED, "input": text, "background": True, **fields})
        assert answer.status == 200, await answer.text()
        response_id: str = (await answer.json())["id"]
    return response_id


async def test_a_job_tells_when_what_happened_and_what_it_took(pollux: Replica) -> None:
    began = time.time()
    response_id = await made(pollux, metadata={"order": "17"})
    job = await ask(pollux, f"jobs/{response_id}")
    times = [job[name] for name in ("created_at", "started_at", "first_event_at", "ended_at")]
    assert times == sorted(times)
    assert began - 1 < times[0] <= times[-1] < time.time() + 1
    assert (job["object"], job["status"], job["model"], job["stream"]) == ("job", "completed", CACHED, False)
    assert (job["attempts"], job["error"], job["metadata"]) == (1, None, {"order": "17"})
    assert job["deployment"]["provider"] == "openai"
    assert job["tokens"]["input"] > 0
    assert job["events"] > 5
    queued, run = job["life"]
    assert (queued["phase"], queued["from"], queued["until"]) == ("queued", job["created_at"], job["started_at"])
    assert (run["phase"], run["until"], run["attempt"], run["failed_tries"]) == ("run", job["ended_at"], 1, [])


async def test_a_list_has_the_newest_first_and_is_narrowed_by_the_query(pollux: Replica) -> None:
    first = await made(pollux, metadata={"order": "One"})
    second = await made(pollux, "two")
    async with pollux.http() as http:
        third = await begun(pollux, "later [[first_delay_ms=30000]]")
        assert await ids(pollux) == [third, second, first]
        assert await ids(pollux, status="completed") == [second, first]
        assert await ids(pollux, status="queued,in_progress") == [third]
        assert await ids(pollux, search="oNE") == [first]
        assert await ids(pollux, search=second[-12:]) == [second]
        assert await ids(pollux, model="another") == []
        await http.post(f"responses/{third}/cancel")
    assert await ids(pollux, status="cancelled") == [third]


async def test_some_are_asked_for_by_their_ids(pollux: Replica) -> None:
    hers, his, also_hers = await made(pollux), await made(pollux, key=BOB), await made(pollux)
    named = f"{also_hers},{his},litellm_poll_none,{hers}"
    assert await ids(pollux, ids=named) == [also_hers, hers]
    assert await ids(pollux, MASTER_KEY, ids=named) == [also_hers, his, hers]


async def test_pages_follow_each_other_without_a_gap(pollux: Replica) -> None:
    made_ids = [await made(pollux, str(number)) for number in range(5)][::-1]
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = await ask(pollux, "jobs", **query)
        found += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        query["page"] = page["next_page"]
    assert found == made_ids
    assert page["next_page"] is None


async def test_a_key_sees_its_own_and_the_master_key_all_with_their_owners(pollux: Replica) -> None:
    hers, his = await made(pollux), await made(pollux, key=BOB)
    assert await ids(pollux) == [hers]
    assert await ids(pollux, BOB) == [his]
    all_of_them = (await ask(pollux, "jobs", MASTER_KEY))["data"]
    assert [(job["id"], job["owner"]) for job in all_of_them] == [(his, "bob"), (hers, "alice")]
    assert await ids(pollux, MASTER_KEY, owner="alice") == [hers]
    assert "owner" not in (await ask(pollux, f"jobs/{hers}"))
    async with pollux.http(BOB) as http:
        answer = await http.get(f"jobs/{hers}")
        assert answer.status == 404
        assert (await http.get("jobs", params={"owner": "alice"})).status == 400


@pytest.mark.parametrize(
    "query", [{"status": "done"}, {"page": "???"}, {"page": "YWJj"}, {"search": "x" * 201}, {"limit": "0"}]
)
async def test_what_can_not_be_meant_is_refused(pollux: Replica, query: dict[str, str]) -> None:
    async with pollux.http() as http:
        answer = await http.get("jobs", params=query)
        refused = await refusal(answer)
        assert (refused.status, refused.param) == (400, next(iter(query)))


async def test_failed_tries_are_told_with_their_reasons(simulator: str, store_url: str) -> None:
    config = {**make_config(simulator), "router_settings": {"num_retries": 1}}
    async with running_replica(config, store_url) as replica:
        response_id = await made(replica, "[[status=503]]")
        job = await ask(replica, f"jobs/{response_id}")
        assert (job["status"], job["error"]) == ("failed", "server_error")
        [_, run] = job["life"]
        assert len(run["failed_tries"]) == 2
        for one in run["failed_tries"]:
            assert one["deployment"]
            assert one["model"] == CACHED
            assert one["reason"]
            assert job["started_at"] <= one["at"] <= job["ended_at"] + 1


@pytest.mark.slow
async def test_after_a_kill_the_life_has_two_runs_and_who_had_them(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, lease_s=1)
    async with running_replica({**config, "pollux": {**config["pollux"], "worker_concurrency": 0}}, store_url) as other:
        async with replica_process(config, store_url, tmp_path) as dying:
            response_id = await begun(dying, "[[words=40]] [[rate=10]]")

            async def runs() -> bool:
                return int((await ask(other, f"jobs/{response_id}"))["events"]) > 5

            await wait_until(runs)
            dying.signal(signal.SIGKILL)
        async with running_replica(config, store_url), other.http() as http:
            await ended(http, response_id)
        job = await ask(other, f"jobs/{response_id}", MASTER_KEY)
        first, second = [phase for phase in job["life"] if phase["phase"] == "run"]
        assert (first["attempt"], second["attempt"], second["reclaimed"]) == (1, 2, True)
        assert first["until"] == second["from"]
        assert first["worker"] != second["worker"] == job["worker"]


async def test_processes_and_deployments_tell_how_they_do(pollux: Replica) -> None:
    await made(pollux)

    async def reported() -> bool:
        found = (await ask(pollux, "deployments", MASTER_KEY))["data"]
        return any(one["calls"] for one in found)

    await wait_until(reported, timeout_s=15)
    [process] = (await ask(pollux, "processes", MASTER_KEY))["data"]
    assert (process["object"], process["role"], process["leaving"]) == ("process", "all", False)
    one = next(one for one in (await ask(pollux, "deployments"))["data"] if one["model"] == CACHED)
    assert (one["state"], one["failed"], one["in_flight"]) == ("healthy", 0, 0)
    assert one["median_s"] > 0
    assert one["cooling_at"] is None
    async with pollux.http() as http:
        assert (await http.get("processes")).status == 403


async def test_tallies_count_the_changes_of_each_minute(pollux: Replica) -> None:
    await made(pollux)
    await made(pollux, key=BOB)
    told: dict[str, Any] = {}
    for key, count in ((ALICE, 1), (BOB, 1), (MASTER_KEY, 2)):
        told = await ask(pollux, "tallies", key)
        assert len(told["data"]) == 60
        last_two = told["data"][-2:]  # the minute may have turned
        for status in ("queued", "in_progress", "completed"):
            assert sum(minute.get(status, 0) for minute in last_two) == count
    assert (told["queued"], told["running"]) == (0, 0)


async def test_what_is_queued_and_what_runs_now_is_counted_for_each_key(simulator: str, store_url: str) -> None:
    async with running_replica(make_config(simulator, worker_concurrency=1), store_url) as replica:
        for _ in range(3):
            await begun(replica, "later [[first_delay_ms=30000]]")

        async def is_shown(key: str, numbers: tuple[int, int]) -> bool:
            told = await ask(replica, "tallies", key)
            return (told["queued"], told["running"]) == numbers

        for key, numbers in ((ALICE, (2, 1)), (BOB, (0, 0)), (MASTER_KEY, (2, 1))):
            await wait_until(lambda key=key, numbers=numbers: is_shown(key, numbers), timeout_s=10)
