"""When a job may be taken from a worker whose lease ran out: only if that worker could have renewed it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from server.jobs.leaser import FRESH_MS, Leaser, Leasing, Reclaiming
from storage import Lease, Leased, Shard, Store, StoreUnavailable, Verdict

LEASE_S = 15.0


def test_nobody_is_reclaimed_before_a_whole_lease_has_passed_since_our_own_start() -> None:
    reclaiming = Reclaiming(LEASE_S, now=100.0)
    reclaiming.note_answer(50_000, 100.0)
    assert reclaiming.until_ms(100.0 + LEASE_S - 0.1) == 0
    assert reclaiming.until_ms(100.0 + LEASE_S) == 50_000 + FRESH_MS


def test_nor_while_the_store_is_away_and_for_a_lease_after_it() -> None:
    reclaiming = Reclaiming(LEASE_S, now=0.0)
    reclaiming.note_answer(1_000, 20.0)
    assert reclaiming.until_ms(20.0) > 0
    assert reclaiming.note_outage()
    assert not reclaiming.note_outage(), "no news"
    assert reclaiming.until_ms(60.0) == 0
    assert reclaiming.note_answer(61_000, 60.0), "it is back"
    assert not reclaiming.note_answer(62_000, 61.0)
    assert reclaiming.until_ms(60.0 + LEASE_S - 0.1) == 0
    assert reclaiming.until_ms(60.0 + LEASE_S) == 62_000 + FRESH_MS


def test_a_call_may_reclaim_for_as_long_as_the_last_answer_vouches() -> None:
    brief = Reclaiming(1.0, now=0.0)
    brief.note_answer(7_000, 5.0)
    assert brief.until_ms(5.0) == 8_000, "no longer than a lease"


class Jobs:
    """A server that answers what it is told to."""

    def __init__(self, *answers: Leased | StoreUnavailable) -> None:
        self._answers = list(answers)
        self.calls: list[dict[str, Any]] = []

    async def lease(self, _shard: Shard, token: str, **asked: Any) -> Leased:
        self.calls.append({"token": token, **asked})
        answer = self._answers.pop(0)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer


def leaser_of(jobs: Jobs) -> Leaser:
    store = cast("Store", SimpleNamespace(jobs=jobs))
    return Leaser(store, Shard(0), Leasing(lease_s=0.0, max_attempts=3, max_age_s=60.0))


JOB = Lease("id", "t", "alice", Verdict.RUN, 1, 1, 2, False, 1, "m", "", "", "", "", -1, b"{}")


async def test_a_call_that_came_too_late_to_reclaim_is_repeated_at_once_and_then_may() -> None:
    jobs = Jobs(Leased(90_000, stale=True), Leased(90_001, JOB))
    assert await leaser_of(jobs).take() == JOB
    late, fresh = (call["reclaim_until_ms"] for call in jobs.calls)
    assert late < 90_000 <= fresh


async def test_a_server_that_stands_still_again_and_again_gives_nothing_for_now() -> None:
    jobs = Jobs(*(Leased(at, stale=True) for at in (1, 2, 3)))
    assert await leaser_of(jobs).take() is None


async def test_a_call_whose_answer_was_lost_is_repeated_with_its_token() -> None:
    jobs = Jobs(StoreUnavailable("away"), Leased(1, JOB), Leased(2))
    leaser = leaser_of(jobs)
    assert await leaser.take() is None
    assert await leaser.take() == JOB
    assert await leaser.take() is None
    lost, repeated, next_one = (call["token"] for call in jobs.calls)
    assert lost == repeated != next_one
