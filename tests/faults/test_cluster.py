"""A Redis Cluster as the store: its nodes die, hang and are replaced; replicas of Pollux die on it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from storage import StoreUnavailable, open_store
from storage.keys import SETTINGS, Shard, shard_of
from tests.support.cluster import ClusterServers, running_cluster
from tests.support.replica import CACHED, MASTER_KEY, Replica, ended, make_config, replica_process, running_replica
from tests.support.servers import documented_rights
from tests.support.stored import ALICE, finish, run
from tests.support.subscribers import Patient, faults_of, lives_in
from tests.support.upstreams import runs_of
from tests.support.waiting import wait_until

TEAMS = [f"team-{n}" for n in range(12)]
"""Owners in many shards, and so on all nodes."""
JOBS = 24


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    """Three primaries, each with a replica that takes over."""
    with running_cluster(3, replicas=1) as servers:
        yield servers


@pytest.fixture(autouse=True)
def whole_again(cluster: ClusterServers) -> Iterator[None]:
    """What a test killed is there for the next one."""
    yield
    for node in cluster.nodes:
        if not node.runs:
            node.start()
    cluster.settle()


def config_of(simulator: str, **pollux: Any) -> dict[str, Any]:
    return make_config(simulator, keys=[{"name": team, "key": f"sk-{team}"} for team in TEAMS], **pollux)


@asynccontextmanager
async def started(replica: Replica, text: str) -> AsyncIterator[list[tuple[str, str]]]:
    """Jobs of all teams, running: their ids and keys."""
    keys = [f"sk-{TEAMS[n % len(TEAMS)]}" for n in range(JOBS)]
    made = await asyncio.gather(*(_create(replica, key, f"job {n} {text}") for n, key in enumerate(keys)))
    for response_id, key in zip(made, keys, strict=True):
        await wait_until(lambda one=response_id, key=key: _has_output(replica, one, key), what="it has output")
    yield list(zip(made, keys, strict=True))


async def _create(replica: Replica, key: str, text: str) -> str:
    async with replica.http(key) as http:
        answer = await http.post("responses", json={"model": CACHED, "input": text, "background": True})
        assert answer.status == 200, await answer.text()
        response_id: str = (await answer.json())["id"]
        return response_id


async def _has_output(replica: Replica, response_id: str, key: str) -> bool:
    async with replica.http(key) as http:
        return bool((await (await http.get(f"responses/{response_id}")).json()).get("output"))


async def _all_complete(replica: Replica, jobs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    responses = await asyncio.gather(*(_ended(replica, one, key) for one, key in jobs))
    for number, response in enumerate(responses):
        assert response["status"] == "completed", response["error"]
        assert f"job {number} " in response["output"][0]["content"][0]["text"]
    return responses


async def _ended(replica: Replica, response_id: str, key: str) -> dict[str, Any]:
    async with replica.http(key) as http:
        return await ended(http, response_id)


async def test_a_replica_that_dies_loses_nothing_in_any_shard(
    cluster: ClusterServers, simulator: str, tmp_path: Path
) -> None:
    config = config_of(simulator, lease_s=2)
    async with (
        replica_process(config, cluster.url, tmp_path) as dying,
        replica_process(config, cluster.url, tmp_path) as surviving,
        started(dying, "[[words=60]] [[delay_ms=50]]") as jobs,
    ):
        await dying.kill()
        await _all_complete(surviving, jobs)
    shards = {shard_of(response_id, 16) for response_id, _ in jobs}
    assert len({cluster.owner_of(Shard(n).leases).port for n in shards}) == 3, "the jobs lie on all nodes"


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["kill -9", "hung"])
async def test_a_primary_that_fails_is_replaced_and_no_run_notices(
    cluster: ClusterServers, simulator: str, fault: signal.Signals
) -> None:
    async with (
        running_replica(config_of(simulator), cluster.url) as pollux,
        started(pollux, "[[words=80]] [[delay_ms=50]]") as jobs,
    ):
        # What a failover may lose is the tail that no replica has yet; here it shall be no run's beginning.
        await asyncio.to_thread(cluster.replicate)
        failing = cluster.owner_of(Shard(shard_of(TEAMS[0], 16)).leases)
        failing.signal(fault)
        try:
            await _all_complete(pollux, jobs)
            after = await _create(pollux, f"sk-{TEAMS[0]}", "after")
            assert (await _ended(pollux, after, f"sk-{TEAMS[0]}"))["status"] == "completed"
        finally:
            failing.signal(signal.SIGCONT)
            failing.kill()
    assert await runs_of(simulator) == JOBS + 1, "none ran twice"


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["kill -9", "hung"])
async def test_the_masters_subscriber_is_told_each_transition_once_while_a_primary_is_replaced(
    cluster: ClusterServers, simulator: str, fault: signal.Signals
) -> None:
    life = ["response.queued", "response.in_progress", "response.completed"]
    async with (
        running_replica(config_of(simulator), cluster.url) as pollux,
        Patient(lambda: [pollux.url], MASTER_KEY, hangs_up_after=10) as everybodys,
        Patient(lambda: [pollux.url], f"sk-{TEAMS[0]}") as own,
        started(pollux, "[[words=80]] [[delay_ms=50]]") as jobs,
    ):
        # What a failover may lose is the tail that no replica has yet; here it shall be no transition.
        await asyncio.to_thread(cluster.replicate)
        failing = cluster.owner_of(Shard(shard_of(TEAMS[0], 16)).leases)
        failing.signal(fault)
        try:
            await everybodys.has_been_told(lambda events: len(events) >= JOBS * len(life))
            await own.has_been_told(lambda events: len(events) >= JOBS // len(TEAMS) * len(life))
        finally:
            failing.signal(signal.SIGCONT)
            failing.kill()
    assert lives_in(everybodys.events) == {one: life for one, _ in jobs}
    assert lives_in(own.events) == {one: life for one, key in jobs if key == f"sk-{TEAMS[0]}"}
    assert faults_of(everybodys.events) == faults_of(own.events) == []


async def test_what_a_script_would_find_half_moved_waits_until_its_slot_has_moved(cluster: ClusterServers) -> None:
    """A delivery of which the queue is still here and the rest is there already would be taken for one that is gone."""
    shard = Shard(shard_of(ALICE, 16))
    async with open_store(cluster.url) as store:
        assert await store.deliveries.add(ALICE, "we_1", b'{"statuses": ["completed"]}', 20)
        taken = await run(store)
        await finish(store, taken, 3)
        source = cluster.owner_of(shard.leases)
        target = next(node for node in cluster.nodes if node.is_primary and node is not source)
        cluster.open_slot(shard.leases, source, target)
        cluster.move_keys([shard.delivery(f"we_1 completed {taken.id}")], source, target)
        with pytest.raises(StoreUnavailable):
            await store.deliveries.claim(shard, "t", most=1, most_each=1, for_s=60)
        with pytest.raises(StoreUnavailable):
            await store.jobs.count()
        cluster.move_slot(shard.leases, source, target)
        assert cluster.owner_of(shard.leases) is target
        [delivery] = await store.deliveries.claim(shard, "t", most=1, most_each=1, for_s=60)
        assert delivery.entry.response_id == taken.id
        counts = await store.jobs.count()
        assert (counts.queued, counts.leased) == (0, 0)
        await store.deliveries.remove(ALICE, "we_1")


async def test_a_create_waits_until_a_replica_of_its_node_has_it(cluster: ClusterServers, simulator: str) -> None:
    async with running_replica(config_of(simulator, store_sync="replica"), cluster.url) as pollux:
        made = [(await _create(pollux, f"sk-{team}", f"job {n} here"), f"sk-{team}") for n, team in enumerate(TEAMS)]
        await _all_complete(pollux, made)


async def test_the_rights_that_the_runbook_names_are_enough_on_all_nodes(
    cluster: ClusterServers, simulator: str
) -> None:
    rights = ["reset", "on", ">hunter2", *documented_rights(), "+cluster|slots", "+command"]
    for node in cluster.nodes:
        node.client.execute_command("ACL", "SETUSER", "careful", *rights)  # type: ignore[no-untyped-call]
        node.client.acl_log_reset()
    url = cluster.url.replace("://", "://careful:hunter2@")
    async with running_replica(config_of(simulator, lease_s=1, store_sync="replica"), url) as pollux:
        made = [(await _create(pollux, f"sk-{team}", f"job {n} here"), f"sk-{team}") for n, team in enumerate(TEAMS)]
        await _all_complete(pollux, made)
    denied = [entry for node in cluster.nodes for entry in node.client.acl_log()]
    # redis-py introduces itself, and goes on where it may not.
    assert [entry for entry in denied if not str(entry["object"]).startswith(("client|", "hello"))] == []


@pytest.mark.timeout(240)  # half a minute where nothing else runs: each call to a silent node waits out its patience
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "silent"])
async def test_while_a_node_and_its_replica_are_away_what_lies_on_the_others_is_served(
    cluster: ClusterServers, simulator: str, fault: signal.Signals
) -> None:
    away = next(node for node in cluster.nodes if node.is_primary and node is not cluster.owner_of(SETTINGS))
    lying_there = [team for team in TEAMS if cluster.owner_of(Shard(shard_of(team, 16)).leases) is away]
    elsewhere = [team for team in TEAMS if team not in lying_there]
    both = [away, cluster.replica_of(away)]
    rest = [node for node in cluster.nodes if node not in both]
    for node in rest:
        node.client.config_set("cluster-require-full-coverage", "no")
    for node in both:
        node.signal(fault)
    try:
        async with running_replica(config_of(simulator), cluster.url) as pollux:
            for round_ in ("before", "after"):
                made = [(await _create(pollux, f"sk-{team}", f"{team} {round_}"), f"sk-{team}") for team in elsewhere]
                for response in await asyncio.gather(*(_ended(pollux, one, key) for one, key in made)):
                    assert response["status"] == "completed"
                async with pollux.http(f"sk-{lying_there[0]}") as http:
                    answer = await http.post("responses", json={"model": CACHED, "input": "x", "background": True})
                    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
                for node in rest:  # all connections break, and where the slots are is asked anew
                    node.client.client_kill_filter(_type="normal", skipme=True)
    finally:
        for node in both:
            node.signal(signal.SIGCONT)
            node.kill()
