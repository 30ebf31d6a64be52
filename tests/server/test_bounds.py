"""What is kept in memory is bounded: journals, each and all together, folds and tails."""

from __future__ import annotations

import asyncio
import tracemalloc
from types import SimpleNamespace
from typing import cast

import pytest

from server.jobs.committer import Committer
from server.jobs.journal import PENDING_BYTES, Journal
from server.responses import subscribe
from server.responses.tails import TAIL_BYTES, Tails
from server.responses.view import CACHED_S, Views
from storage import Batch, Cursor, Lease, Outcome, Place, Reading, Record, Shard, StatusEntry, Step, Store, Verdict
from storage.keys import Shards

KB = b"x" * 1024


def lease_of(response_id: str) -> Lease:
    return Lease(response_id, "t", "alice", Verdict.RUN, 1, 1, 2, False, 1, "m", "", "", "", "", -1, b"{}")


def new_committer() -> Committer:
    """One that is not running: nothing is ever stored."""
    store = cast("Store", SimpleNamespace(jobs=SimpleNamespace(shards=Shards(1))))
    return Committer(store, lease_s=15, store_grace_s=30)


def journal_of(committer: Committer, name: str = "a") -> Journal:
    return committer.open(lease_of(name), lambda _outcome: None)


async def has_room(journal: Journal) -> bool:
    try:
        async with asyncio.timeout(0.02):
            await journal.room()
    except TimeoutError:
        return False
    return True


async def test_a_journal_takes_no_more_than_its_part() -> None:
    journal = journal_of(new_committer())
    for _ in range(PENDING_BYTES // len(KB)):
        journal.add(KB)
    assert await has_room(journal)
    journal.add(KB)
    assert not await has_room(journal)
    append = journal.take()
    journal.settle(append, Step(Outcome.OK, append.last))
    assert await has_room(journal)


async def test_all_journals_together_take_no_more_than_a_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.jobs.committer.ALL_PENDING_BYTES", 10 * len(KB))
    committer = new_committer()
    one, other, idle = (journal_of(committer, name) for name in "abc")
    for _ in range(6):
        one.add(KB)
        other.add(KB)
    assert not await has_room(one)
    assert not await has_room(other)
    assert await has_room(idle), "who holds nothing may go on"
    append = one.take()
    one.settle(append, Step(Outcome.OK, append.last))
    assert await has_room(one)
    assert await has_room(other), "there is room for all again"


async def test_a_run_that_ends_gives_back_what_its_journal_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.jobs.committer.ALL_PENDING_BYTES", 3 * len(KB))
    committer = new_committer()
    lost, other = journal_of(committer, "a"), journal_of(committer, "b")
    for _ in range(4):
        lost.add(KB)
    other.add(KB)
    assert not await has_room(other)
    lost.close()
    assert await has_room(other)


class Logs:
    """Responses whose logs are one long batch of frames."""

    def __init__(self, size: int) -> None:
        self.frames = b"event: response.created\ndata: {}\n\n" * (size // 34)

    async def read(self, response_id: str, after: Cursor, *, request: bool = True) -> Reading:
        return self._reading(response_id, b"{}" if request else b"")

    async def read_log(self, response_id: str, _after: Cursor) -> Reading:
        return self._reading(response_id)

    def _reading(self, response_id: str, request: bytes = b"") -> Reading:
        last = self.frames.count(b"\n\n") - 1
        record = Record(response_id, "alice", "in_progress", "m", 1, True, Cursor(1, last))
        return Reading(record, request, batches=(Batch(record.cursor, self.frames),))


def store_of(logs: Logs) -> Store:
    return cast("Store", SimpleNamespace(responses=logs))


async def test_folds_are_bounded_in_number_and_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.responses.view.CACHED_FOLDS", 5)
    views = Views(store_of(Logs(1000)))
    for number in range(20):
        await views.view(f"id-{number}")
    assert list(views._folds) == [f"id-{number}" for number in range(15, 20)], "those that were read last"
    monkeypatch.setattr("server.responses.view.CACHED_BYTES", 2500)
    await views.view("id-20")
    assert list(views._folds) == ["id-19", "id-20"]
    assert views._size == sum(fold.size for fold in views._folds.values()) <= 2500


async def test_a_fold_that_nobody_has_read_for_a_while_is_dropped() -> None:
    views = Views(store_of(Logs(1000)))
    for number in range(3):
        await views.view(f"id-{number}")
    assert list(views._folds) == ["id-0", "id-1", "id-2"]
    for number in range(2):
        views._folds[f"id-{number}"].read_at -= CACHED_S + 1
    await views.view("id-1")
    assert list(views._folds) == ["id-2", "id-1"], "one was read again"
    assert views._size == sum(fold.size for fold in views._folds.values())


async def test_tails_are_bounded_in_number_and_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.responses.tails.TAILS", 3)
    tails = Tails(store_of(Logs(3 * TAIL_BYTES)))
    for number in range(10):
        await tails.read_log(f"id-{number}", Cursor(1, -1))
    assert list(tails._tails) == ["id-7", "id-8", "id-9"]
    assert all(tail._size <= TAIL_BYTES for tail in tails._tails.values())


def test_a_store_of_one_shard_has_one() -> None:
    assert Shards(1).of("anybody") == Shard(0)


def test_an_event_that_is_kept_for_all_who_are_told_takes_no_more_than_its_text() -> None:
    subscribe._made.cache_clear()
    entries = [StatusEntry(Place(number), "completed", f"id-{number}", "alice", "m", b"") for number in range(300)]
    tracemalloc.start()
    try:
        texts = sum(len(subscribe._data(entry, owner_shown=False)) for entry in entries)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        subscribe._made.cache_clear()
    assert taken < 4 * texts, "with what the cache itself needs"
