"""A backup that is taken under load, restored to another server: what the runbook says of it is so."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.receiver import running_receiver
from tests.support.replica import all_complete, create, make_config, running_replica
from tests.support.servers import running_redis
from tests.support.waiting import wait_until

BINARY = shutil.which("redis-server") or ""
SECRET = "whsec_" + "c2VjcmV0" * 4
JOB = "[[words=12]] [[delay_ms=20]]"
pytestmark = pytest.mark.skipif(not BINARY, reason="there is no redis-server here")


async def quiet(admin: redis.Redis, what: str) -> None:
    """Wait until the server writes no such file."""

    def is_over() -> bool:
        about: Any = admin.info("persistence")
        return not about[f"{what}_in_progress"]

    await wait_until(is_over, what=f"{what} is over")


def copy_of_dump(here: Path, there: Path) -> None:
    shutil.copy(here / "dump.rdb", there)


def copy_of_log(here: Path, there: Path) -> None:
    shutil.copytree(here / "appendonlydir", there / "appendonlydir")


@pytest.mark.parametrize("kind", ["dump", "log"])
async def test_a_backup_under_load_holds_all_that_was_there_and_its_jobs_go_on(
    kind: str, simulator: str, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(running_receiver())
        hook = {"url": receiver.url, "secret": SECRET}
        config = make_config(simulator, lease_s=1, webhooks=[hook], webhook_allow_private=True)
        url = stack.enter_context(running_redis(BINARY, dir=str(old), appendonly="yes"))
        admin = stack.enter_context(redis.Redis.from_url(url))
        over = asyncio.Event()
        made: list[str] = []
        async with running_replica(config, url) as pollux, pollux.http() as http:

            async def load() -> None:
                for number in itertools.count():
                    if over.is_set():
                        return
                    made.append(await create(pollux, f"{number} {JOB}"))
                    await asyncio.sleep(0.02)

            async with asyncio.TaskGroup() as group:
                group.create_task(load())
                await wait_until(lambda: len(made) >= 20, what="there is load")
                before = list(made)
                if kind == "dump":
                    admin.bgsave()
                    await quiet(admin, "rdb_bgsave")
                    copy_of_dump(old, new)
                else:
                    # Nothing is to be rewritten meanwhile. What is half written at the end of the copy is cut off.
                    admin.config_set("auto-aof-rewrite-percentage", 0)
                    await wait_until(
                        lambda: not admin.info("persistence")["aof_rewrite_in_progress"], what="no rewrite"
                    )
                    copy_of_log(old, new)
                after = len(made)
                await wait_until(lambda: len(made) >= after + 10, what="there is load after it")
                over.set()
            await all_complete(http, made)
            late = made[-1]
            await receiver.receive(len(made))
        told: dict[str, str] = {event["data"]["id"]: event["id"] for event in receiver.events()}
        receiver.received.clear()

        restored = stack.enter_context(running_redis(BINARY, dir=str(new), appendonly="yes" if kind == "log" else "no"))
        async with running_replica(config, restored) as pollux, pollux.http() as http:
            await all_complete(http, before)
            assert (await http.get(f"responses/{late}")).status == 404, "what came after it is gone"
            # What had ended since runs again, and is told again, under the same id.
            await wait_until(lambda: before[-1] in {one["data"]["id"] for one in receiver.events()}, what="told again")
        assert all(event["id"] == told[event["data"]["id"]] for event in receiver.events())
