"""The meter: what passes through is stored together, once, and as soon as there is a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from server import usage
from server.config import parse_config
from server.protocol.tokens import Price, Tokens
from server.upstream.deployments import Deployments
from server.usage import AT_ONCE, COUNTED_WITHIN_S, MOST_KNOWN, Meter
from storage import Counted, Shard, Spent, Store, StoreError, StoreUnavailable
from storage.keys import Shards
from tests.support.waiting import wait_until

MODELS = [{"model_name": "gpt-5.2", "litellm_params": {"model": "openai/x"}}]
[HERE] = Deployments(parse_config({"model_list": MODELS})).all
PRICED = replace(HERE, id="priced", price=Price(2, 1, 5))
TOLD = Tokens(3, 0, 2, 1)


class Counts:
    """The counting side of a store that may be away, or break."""

    def __init__(self) -> None:
        self.shards = Shards(1)
        self.calls: list[list[Counted]] = []
        self.tokens: set[str] = set()
        self.fault: StoreError | None = None
        self.deaf = False
        """It runs what it is told, but its answers get lost."""

    async def count(self, _shard: Shard, counts: Sequence[Counted]) -> None:
        await asyncio.sleep(0)
        self.calls.append(list(counts))
        if self.fault is not None and not self.deaf:
            raise self.fault
        self.tokens |= {one.token for one in counts}
        if self.fault is not None:
            raise self.fault

    @property
    def requests(self) -> int:
        """How many are counted, each token once."""
        by_token = {one.token: one for call in self.calls for one in call if one.token in self.tokens}
        return sum(one.spent.requests for one in by_token.values())


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    monkeypatch.setattr(usage, "EVERY_S", 0.01)
    return Counts()


@asynccontextmanager
async def metering(counts: Counts) -> AsyncIterator[Meter]:
    meter = Meter(cast("Store", SimpleNamespace(usage=counts)))
    task = asyncio.create_task(meter.run())
    await asyncio.sleep(0)  # or it might be cancelled before its first step
    try:
        yield meter
    finally:
        task.cancel()
        await asyncio.wait([task])


def native(meter: Meter, number: int, age_s: float = 0, owner: str = "alice") -> None:
    meter.count_native(owner, HERE, TOLD, f"resp_{number}", int(time.time() - age_s))


async def test_what_passes_through_is_added_up_and_stored_in_one_call(counts: Counts) -> None:
    async with metering(counts) as meter:
        for _ in range(50):
            meter.count("alice", HERE, TOLD)
        for _ in range(3):
            meter.count("alice", PRICED, TOLD)
        meter.count("alice", PRICED, None)
        meter.count("bob", PRICED, None)
        await wait_until(lambda: counts.calls)
    [call] = counts.calls
    assert sorted([(one.owner, one.spent) for one in call], key=str) == [
        ("alice", Spent("gpt-5.2", requests=4, input=9, output=6, reasoning=3, cost=48)),
        ("alice", Spent("gpt-5.2", requests=50, input=150, output=100, reasoning=50)),
        ("bob", Spent("gpt-5.2")),
    ]


async def test_nothing_is_asked_of_the_store_while_nothing_passes_through(counts: Counts) -> None:
    async with metering(counts) as meter:
        meter.count("alice", HERE, TOLD)
        await wait_until(lambda: counts.calls)
        await asyncio.sleep(0.1)
    assert len(counts.calls) == 1


async def test_a_native_response_is_stored_once_by_a_process(counts: Counts) -> None:
    async with metering(counts) as meter:
        for _ in range(3):
            native(meter, 1)
            native(meter, 2)
        await wait_until(lambda: counts.calls)
        native(meter, 1)
        await asyncio.sleep(0.05)
    assert (len(counts.calls), counts.requests) == (1, 2)


async def test_another_process_counts_it_under_the_same_token(counts: Counts) -> None:
    for _ in range(2):
        async with metering(counts) as meter:
            native(meter, 1)
    assert (len(counts.calls), counts.requests) == (2, 1)


async def test_a_native_response_of_long_ago_is_not_counted(counts: Counts) -> None:
    async with metering(counts) as meter:
        native(meter, 1, age_s=COUNTED_WITHIN_S + 10)
        native(meter, 2, age_s=COUNTED_WITHIN_S - 10)
        meter.count_native("alice", HERE, TOLD, "resp_3", None)
    assert counts.requests == 2


@pytest.mark.parametrize("deaf", [False, True], ids=["away", "its answers get lost"])
async def test_while_the_store_is_away_all_is_kept_and_then_counted_once(counts: Counts, deaf: bool) -> None:
    counts.fault, counts.deaf = StoreUnavailable("away"), deaf
    async with metering(counts) as meter:
        for number in range(3):
            meter.count("alice", HERE, TOLD)
            meter.count("bob", HERE, TOLD)
            native(meter, number)
            seen = len(counts.calls)
            await wait_until(lambda seen=seen: len(counts.calls) > seen + 2)
        counts.fault = None
        await wait_until(lambda: counts.requests == 9)
        await asyncio.sleep(0.05)
    assert counts.requests == 9


async def test_an_end_stores_what_is_left(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "EVERY_S", 30)
    async with metering(counts) as meter:
        meter.count("alice", HERE, TOLD)
        await asyncio.sleep(0.02)
        assert counts.calls == []
    assert counts.requests == 1


async def test_an_end_does_not_wait_for_a_store_that_hangs(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_shard: Shard, _counts: Sequence[Counted]) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(usage, "LAST_S", 0.05)
    monkeypatch.setattr(counts, "count", hang)
    async with asyncio.timeout(5):
        async with metering(counts) as meter:
            meter.count("alice", HERE, TOLD)


async def test_what_the_store_refuses_for_good_is_dropped_and_the_rest_is_counted(counts: Counts) -> None:
    counts.fault = StoreError("broken")
    async with metering(counts) as meter:
        meter.count("alice", HERE, TOLD)
        await wait_until(lambda: counts.calls)
        counts.fault = None
        meter.count("alice", HERE, TOLD)
        await wait_until(lambda: counts.requests == 1)
    assert len(counts.calls) == 2


async def test_a_call_carries_only_so_many(counts: Counts) -> None:
    async with metering(counts) as meter:
        for number in range(2 * AT_ONCE + 1):
            native(meter, number)
        await wait_until(lambda: counts.requests == 2 * AT_ONCE + 1)
    assert [len(call) for call in counts.calls] == [AT_ONCE, AT_ONCE, 1]


async def test_what_a_process_keeps_is_bounded(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MOST_WAITING", 10)
    counts.fault = StoreUnavailable("away")
    async with metering(counts) as meter:
        for number in range(20):
            native(meter, number)
        counts.fault = None
        await wait_until(lambda: counts.requests == 10)
        for number in range(10, 20):  # seen again, when there is room
            native(meter, number)
        await wait_until(lambda: counts.requests == 20)
    monkeypatch.setattr(usage, "MOST_WAITING", 2 * MOST_KNOWN)
    async with metering(counts) as meter:
        for number in range(MOST_KNOWN + 5):
            native(meter, number)
        assert len(meter._known) == MOST_KNOWN
