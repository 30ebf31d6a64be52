"""The group commit: in passes, with rests that grow with what there is to store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from server.jobs.committer import COMMIT_APPENDS, INTERVAL_S, LONGEST_REST_S, PER_APPEND_S, Committer
from server.jobs.journal import Journal
from storage import Append, Lease, Outcome, Shard, Step, Store, StoreError, StoreUnavailable, Verdict
from storage.keys import Shards
from tests.support.waiting import wait_until


class TwoShards(Shards):
    def of(self, text: str) -> Shard:
        return self[int(text[0])]


class Logs:
    """The writing side of a store with two shards, one of which may be away."""

    def __init__(self) -> None:
        self.shards = TwoShards(2)
        self.calls: list[list[str]] = []
        self.away: set[Shard] = set()

    async def append_many(self, appends: Sequence[Append], _lease_s: float) -> list[Step | StoreError]:
        await asyncio.sleep(0)
        self.calls.append([append.lease.id for append in appends])
        if self.shards.of(appends[0].lease.id) in self.away:
            return [StoreUnavailable("away")] * len(appends)
        return [Step(Outcome.OK, append.last) for append in appends]


def lease_of(response_id: str) -> Lease:
    return Lease(response_id, "t", "alice", Verdict.RUN, 1, 1, 2, False, 1, "m", "", "", "", "", -1, b"{}")


@asynccontextmanager
async def committing(logs: Logs, store_grace_s: float = 30.0) -> AsyncIterator[Committer]:
    committer = Committer(cast("Store", SimpleNamespace(jobs=logs)), lease_s=15, store_grace_s=store_grace_s)
    task = asyncio.create_task(committer.run())
    try:
        yield committer
    finally:
        task.cancel()
        await asyncio.wait([task])


def journals(committer: Committer, count: int, shard: int = 0) -> list[Journal]:
    return [committer.open(lease_of(f"{shard}-{n}"), lambda _: None) for n in range(count)]


async def test_one_in_a_hurry_waits_for_no_rest_and_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.jobs.committer.INTERVAL_S", 0.3)
    logs = Logs()
    async with committing(logs) as committer:
        one, other = journals(committer, 2)
        one.add(b"first")
        await wait_until(lambda: len(logs.calls) == 1)
        one.add(b"second")
        other.add(b"hurried", urgent=True)
        await wait_until(lambda: len(logs.calls) == 3)
    assert logs.calls == [["0-0"], ["0-1"], ["0-0"]]


async def test_rests_grow_with_the_runs_also_where_they_are_dirty_again_at_once() -> None:
    logs = Logs()
    async with committing(logs) as committer:
        runs = journals(committer, 3 * COMMIT_APPENDS)

        async def write(journal: Journal) -> None:
            while True:
                journal.add(b"x")
                await asyncio.sleep(0.001)

        writing = [asyncio.create_task(write(journal)) for journal in runs]
        expected = min(LONGEST_REST_S, PER_APPEND_S * len(runs))
        await wait_until(lambda: committer.pace_s >= 0.9 * expected, what="it rests as long as it should")
        assert committer.pace_s <= LONGEST_REST_S
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)
        assert max(map(len, logs.calls)) <= COMMIT_APPENDS


async def test_a_shard_that_is_away_holds_up_no_other_and_gives_up_its_own_runs_alone() -> None:
    logs = Logs()
    logs.away = {logs.shards[1]}
    async with committing(logs, store_grace_s=0.2) as committer:
        (here,), (there,) = journals(committer, 1), journals(committer, 1, shard=1)
        there.add(b"lost")
        await wait_until(lambda: there._failure is not None, what="its run was given up")
        here.add(b"kept")
        await here.flush()
        assert here._failure is None


async def test_few_runs_are_not_paced() -> None:
    logs = Logs()
    async with committing(logs) as committer:
        for journal in journals(committer, int(INTERVAL_S / PER_APPEND_S) // 2):
            journal.add(b"x")
        await wait_until(lambda: logs.calls)
        assert committer.pace_s == 0
