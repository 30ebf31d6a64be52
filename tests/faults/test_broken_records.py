"""Records that somebody broke by hand: that response suffers, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis

from storage import End
from storage.keys import Shard
from tests.support.replica import CACHED, NATIVE, Replica, create, ended, make_config, running_replica, with_output
from tests.support.upstreams import runs_of
from tests.support.waiting import wait_until

Break = Callable[[redis.Redis, str], Any]


def set_field(name: str, value: str | bytes) -> Break:
    return lambda admin, response_id: admin.hset(_record(response_id), name, value)


def drop_field(name: str) -> Break:
    return lambda admin, response_id: admin.hdel(_record(response_id), name)


def _record(response_id: str) -> str:
    return Shard(0).record(response_id)


def wrong_kind(admin: redis.Redis, response_id: str) -> None:
    admin.delete(_record(response_id))
    admin.set(_record(response_id), "no hash", ex=60)


def wrong_log(admin: redis.Redis, response_id: str) -> None:
    admin.delete(Shard(0).log(response_id))
    admin.set(Shard(0).log(response_id), "no stream", ex=60)


SET_ASIDE: dict[str, Break] = {
    "created_at is no number": set_field("created_at", "yesterday"),
    "created_at is gone": drop_field("created_at"),
    "epoch is no number": set_field("epoch", "x"),
    "attempt is no number": set_field("attempt", "1e3"),
    "last is gone": drop_field("last"),
    "last has too many digits": set_field("last", "9" * 5000),
    "upstream_last has too many digits": set_field("upstream_last", "9" * 5000),
    "queued_ms is hexadecimal": set_field("queued_ms", "0x10"),
    "the owner is gone": drop_field("owner"),
    "the status is gone": drop_field("status"),
    "upstream_last is no number": set_field("upstream_last", "7a"),
    "the record is no hash": wrong_kind,
    "the log is no stream": wrong_log,
}
FAILED: dict[str, Break] = {
    "the request is gone": drop_field("request"),
    "the request is no JSON": set_field("request", b"\xff{"),
    "the request is a list": set_field("request", "[]"),
}
HARMLESS: dict[str, Break] = {
    "the model is no text": set_field("provider_id", b"\xff\xfe"),
    "a field that nobody knows": set_field("odd", "x"),
}


async def queued_and_broken(replica: Replica, admin: redis.Redis, break_it: Break) -> str:
    response_id = await create(replica, "broken")
    break_it(admin, response_id)
    return response_id


def idle(simulator: str) -> dict[str, Any]:
    return make_config(simulator, worker_concurrency=0)


@pytest.mark.parametrize("fault", SET_ASIDE)
async def test_a_record_that_can_not_be_read_is_set_aside_with_one_line_and_hinders_nobody(
    fault: str, simulator: str, store_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_replica(idle(simulator), store_url) as waiting:
        broken = await queued_and_broken(waiting, admin, SET_ASIDE[fault])
        whole = [await create(waiting, "hi") for _ in range(3)]
        async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
            for response_id in whole:
                assert (await ended(http, response_id))["status"] == "completed"
            assert (await http.get("responses")).status == 200, "a list passes over it"
            # Another worker meets nothing of it any more.
            assert (await ended(http, await create(pollux, "after")))["status"] == "completed"
    aside = [record for record in caplog.records if "set aside" in record.getMessage()]
    assert [vars(record)["response_id"] for record in aside] == [broken]
    assert admin.zcard(Shard(0).leases) == 0
    admin.delete(_record(broken), Shard(0).log(broken))


@pytest.mark.parametrize("fault", FAILED)
async def test_a_response_whose_request_can_not_be_read_fails_at_once(
    fault: str, simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with running_replica(idle(simulator), store_url) as waiting:
        broken = await queued_and_broken(waiting, admin, FAILED[fault])
        async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
            response = await ended(http, broken)
            assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
            assert "can't be read" in response["error"]["message"]
            assert (await http.get(f"responses/{broken}/input_items")).status == 200
    assert await runs_of(simulator) == 0


@pytest.mark.parametrize("fault", HARMLESS)
async def test_what_nobody_needs_may_be_broken(fault: str, simulator: str, store_url: str, admin: redis.Redis) -> None:
    async with running_replica(idle(simulator), store_url) as waiting:
        broken = await queued_and_broken(waiting, admin, HARMLESS[fault])
        async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
            assert (await ended(http, broken))["status"] == "completed"


async def test_a_log_that_can_not_be_written_does_not_keep_a_response_from_ending(
    simulator: str, store_url: str, admin: redis.Redis
) -> None:
    async with running_replica(make_config(simulator), store_url) as pollux, pollux.http() as http:
        response_id = await create(pollux, "on and on [[words=200]] [[delay_ms=20]]")
        await with_output(pollux, response_id)
        # Nothing can be added behind this, and nobody can read it.
        admin.xadd(Shard(0).log(response_id), {"f": b"\x01garbage"}, id="1-4000000000")
        await wait_until(lambda: admin.hget(_record(response_id), "status") == b"failed")
        response = await (await http.get(f"responses/{response_id}")).json()
        assert "can't be written any more" in response["error"]["message"]


async def test_a_sweep_passes_over_what_is_no_record(
    simulator: str, store_url: str, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hub.SWEEP_S", 0.2)
    async with running_replica(idle(simulator), store_url) as pollux, pollux.http() as http:
        broken, whole = await create(pollux, "a"), await create(pollux, "b")
        waits = [asyncio.create_task(http.get(f"responses/{one}?wait=20")) for one in (broken, whole)]
        assert pollux.context is not None
        watches = pollux.context.hub._watches
        await wait_until(lambda: {End(broken), End(whole)} <= watches.keys(), what="both waits sleep")
        wrong_kind(admin, broken)
        # Removed unheard: only a sweep can find it.
        admin.config_set("notify-keyspace-events", "")
        admin.delete(_record(whole))
        assert (await waits[1]).status == 404
        waits[0].cancel()
        admin.config_set("notify-keyspace-events", "Kgxe")
        admin.delete(_record(broken))


# Jobs of models that a config does not know.


async def test_jobs_of_an_unknown_model_hold_up_nobody_elses(simulator: str, store_url: str) -> None:
    """Sixty of them stand before twenty others of the same owner."""
    both, one = make_config(simulator, worker_concurrency=0), make_config(simulator)
    both["litellm_settings"]["responses"]["background_mode"]["native_background_mode"] = []
    one["litellm_settings"] = both["litellm_settings"]
    one["model_list"] = [entry for entry in one["model_list"] if entry["model_name"] == CACHED]
    async with running_replica(both, store_url) as waiting:
        for _ in range(60):
            await create(waiting, "unknown", NATIVE)
        known = [await create(waiting, "hi") for _ in range(20)]
        async with running_replica(one, store_url) as pollux, pollux.http() as http, asyncio.timeout(8):
            began = asyncio.get_running_loop().time()
            for response_id in known:
                assert (await ended(http, response_id))["status"] == "completed"
            assert asyncio.get_running_loop().time() - began < 4, "the model is paused, not the worker"


# Services that break.


async def test_a_service_that_breaks_is_told_and_asks_for_the_end(
    simulator: str, store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(_self: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("server.hub.Hub.sweep", breaks)
    async with running_replica(make_config(simulator), store_url) as pollux:
        assert pollux.context is not None
        await asyncio.wait_for(pollux.context.phase.broken.wait(), 5)
    (line,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert line.getMessage() == "the sweep broke, shutting down"
