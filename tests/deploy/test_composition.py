"""compose.yaml on podman: all of it comes up, a job outlives its replica, and a rolling restart fails no create."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI

from tests.support.containers import Composition, inspected, logged_by, needs_containers, podman, processes_in
from tests.support.waiting import wait_until

pytestmark = [needs_containers, pytest.mark.timeout(300)]

URL, KEY = "http://127.0.0.1:4000", "sk-1234"
REPLICAS = ("pollux-1", "pollux-2")


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    # Shorter than they are shipped: a dead worker is missed sooner, and nginx, which asks no /readyz, needs no grace.
    composition = Composition(tmp_path_factory.mktemp("composition"), lease_s=3, drain_grace_s=0.2)
    with composition.up():
        yield composition
    assert podman("ps", "--all", "--quiet") == podman("volume", "ls", "--quiet") == "", "it leaves nothing behind"


@pytest.fixture
async def sdk() -> AsyncOpenAI:
    """It repeats nothing on its own, so that each failure is one."""
    return AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)


async def test_all_is_up_behind_one_port(composition: Composition, sdk: AsyncOpenAI) -> None:
    async with sdk:
        assert {model.id async for model in sdk.models.list()} == {"gpt-5.2", "o4-mini-deep-research"}
    for service in (*REPLICAS, "nginx", "redis", "prometheus"):
        container = inspected("container", composition.container(service))
        assert container["State"]["Health"]["Status"] == "healthy", service
        assert container["HostConfig"]["ReadonlyRootfs"] == (service != "prometheus")
        assert not container["EffectiveCaps"], service


async def test_prometheus_asks_both_replicas_and_knows_the_alerts(composition: Composition) -> None:
    prometheus = composition.container("prometheus")

    def asked(path: str) -> dict[str, list[dict[str, str]]]:
        answer = json.loads(podman("exec", prometheus, "wget", "-q", "-O", "-", f"http://127.0.0.1:9090/api/v1/{path}"))
        data: dict[str, list[dict[str, str]]] = answer["data"]
        return data

    def both_answer() -> bool:
        targets = asked("targets?state=active")["activeTargets"]
        health = {target["scrapeUrl"]: (target["health"], target["lastError"]) for target in targets}
        return all(health.get(f"http://{name}:4000/metrics") == ("up", "") for name in REPLICAS)

    await wait_until(both_answer, timeout_s=40, what="a scrape of each")
    assert asked("rules")["groups"]


async def test_a_job_outlives_the_container_that_runs_it(composition: Composition, sdk: AsyncOpenAI) -> None:
    """Its first process is killed from outside, as the kernel does when memory is short."""
    async with sdk:
        job = "[[words=8]] [[delay_ms=700]]"
        created = await sdk.responses.create(model="gpt-5.2", input=job, background=True)

        def runners() -> list[str]:
            """The replicas that have begun to run it, one for each attempt."""
            return [
                replica
                for replica in REPLICAS
                for line in logged_by(composition.container(replica))
                if created.id in line and "response started" in line
            ]

        await wait_until(runners, what="a replica runs it")
        [runner] = runners()
        os.kill(inspected("container", composition.container(runner))["State"]["Pid"], signal.SIGKILL)
        ended = await sdk.responses.retrieve(created.id, extra_query={"wait": 50})
        assert ended.status == "completed"
        # Mostly the other one has done it. But the killed one is started again, and may have been faster.
        await wait_until(lambda: len(runners()) == 2, timeout_s=10, what="it was run again")

        def back() -> bool:
            return "pollux" in {name for _, _, name in processes_in(composition.container(runner))}

        await wait_until(back, what="the container is started again")


async def test_a_rolling_restart_fails_no_create(composition: Composition, sdk: AsyncOpenAI) -> None:
    """Both containers are made anew, as for a new image or config."""
    over = asyncio.Event()
    ids = list[str]()

    async def create() -> None:
        while not over.is_set():
            created = await sdk.responses.create(model="gpt-5.2", input="[[words=8]] [[delay_ms=100]]", background=True)
            ids.append(created.id)
            await asyncio.sleep(0.1)

    async def restart() -> None:
        for replica in REPLICAS:
            before = inspected("container", composition.container(replica))["Id"]
            await asyncio.to_thread(composition.restart, replica)
            assert inspected("container", composition.container(replica))["Id"] != before
        over.set()

    async with sdk, asyncio.timeout(200):
        async with asyncio.TaskGroup() as group:
            group.create_task(create())
            group.create_task(restart())
        ended = [await sdk.responses.retrieve(response, extra_query={"wait": 50}) for response in ids]
    assert len(ended) > 20
    assert {response.status for response in ended} == {"completed"}
