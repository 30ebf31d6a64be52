"""What a subscriber to status events is told when processes and the store die: each transition once, in order."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.chaos_store import OneServer
from tests.support.commands import command
from tests.support.customers import Customers
from tests.support.replica import MASTER_KEY, make_config, replica_process, running_replica
from tests.support.subscribers import Patient, faults_of, lives_in, subscribed

COMPLETED = ["response.queued", "response.in_progress", "response.completed"]
FAILED = [*COMPLETED[:2], "response.failed"]


@pytest.mark.slow
async def test_a_reader_that_changes_replicas_twenty_times_is_told_each_of_a_thousand_transitions_once(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, lease_s=2)
    texts = [f"job {n}" + (" [[fail=1]]" if n % 10 == 0 else "") for n in range(334)]
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(replica_process(config, store_url, tmp_path)) for _ in "ab"]
        urls = [first.url, second.url]
        customers = Customers(urls)
        reader = await stack.enter_async_context(Patient(lambda: urls, hangs_up_after=45))
        began_at = reader.last_id
        creating = asyncio.create_task(customers.create(texts[:170]))
        await reader.has_been_told(lambda events: len(events) >= 200)
        await first.kill()
        third = await stack.enter_async_context(replica_process(config, store_url, tmp_path))
        urls[0] = third.url
        await creating
        await customers.create(texts[170:])
        await reader.has_been_told(customers.have_ends)
        async with third.http() as http, subscribed(http, last_id=began_at) as another:
            await another.take(len(reader.events))
    assert len(reader.visits) > 20
    assert set(reader.visits) == {first.url, second.url, third.url}
    assert faults_of(reader.events) == []
    assert lives_in(reader.events) == {
        one: FAILED if "fail" in text else COMPLETED for one, text in customers.made.items()
    }
    assert another.events == reader.events, "who reads it all at once reads the same, in the same order"


async def test_a_worker_that_dies_is_nothing_that_a_subscriber_notices(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, lease_s=2)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(command(tmp_path, config, store_url, "--role", "api"))
        dying = await stack.enter_async_context(command(tmp_path, config, store_url, "--role", "worker"))
        urls = [(await api.serve()).url]
        reader = await stack.enter_async_context(Patient(lambda: urls))
        customers = Customers(urls)
        await customers.create([f"job {n} [[words=30]] [[delay_ms=50]]" for n in range(20)])
        await reader.has_been_told(lambda events: len(events) == 40)
        dying.process.kill()
        await stack.enter_async_context(command(tmp_path, config, store_url, "--role", "worker"))
        await reader.has_been_told(customers.have_ends)
    assert lives_in(reader.events) == dict.fromkeys(customers.made, COMPLETED), "that one began anew is no transition"
    assert faults_of(reader.events) == []
    assert len(reader.visits) == 1


async def test_subscribers_of_a_process_that_dies_go_on_at_its_sibling(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, lease_s=2)
    async with AsyncExitStack() as stack:
        pollux = await stack.enter_async_context(command(tmp_path, config, store_url, "--workers", "2"))
        urls = [(await pollux.serve(2)).url]
        # With so many, each process serves some.
        readers = [await stack.enter_async_context(Patient(lambda: urls)) for _ in range(16)]
        customers = Customers(urls)
        await customers.create([f"job {n} [[words=20]] [[delay_ms=50]]" for n in range(20)])
        for reader in readers:
            await reader.has_been_told(lambda events: len(events) == 40)
        os.kill(pollux.serving[0], signal.SIGKILL)
        for reader in readers:
            await reader.has_been_told(customers.have_ends)
    assert {len(reader.visits) > 1 for reader in readers} == {True, False}, "some were cut off, others were not"
    for reader in readers:
        assert faults_of(reader.events) == []
        assert lives_in(reader.events) == dict.fromkeys(customers.made, COMPLETED)


@pytest.mark.slow
async def test_a_store_that_dies_again_and_again_tells_each_transition_once(simulator: str, tmp_path: Path) -> None:
    """With `appendfsync always`; otherwise what it forgets is forgotten together with the transitions."""
    store = OneServer(f"embedded://{tmp_path / 'store'}")
    texts = [f"job {n} [[words=10]] [[delay_ms=40]]" for n in range(200)]
    async with running_replica(make_config(simulator), store.url) as pollux:
        await asyncio.to_thread(store.settle)
        urls = [pollux.url]
        customers = Customers(urls)
        async with Patient(lambda: urls) as hers, Patient(lambda: urls, MASTER_KEY, hangs_up_after=50) as everybodys:
            creating = asyncio.create_task(customers.create(texts))
            for told in (100, 200, 300):
                await hers.has_been_told(lambda events, told=told: len(events) > told)  # type: ignore[misc]
                await store.befall("store kill -9", 0)
            await creating
            for reader in (hers, everybodys):
                await reader.has_been_told(customers.have_ends)
                assert faults_of(reader.events) == []
                assert lives_in(reader.events) == dict.fromkeys(customers.made, COMPLETED)
    assert [event["id"] for event in hers.events] == [event["id"] for event in everybodys.events]
