"""Whatever happens in whatever order, the store does what a few lines of Python say, and its logs stay whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import TERMINAL, CancelOutcome, Cursor, Lease, Outcome, Step, Store, Verdict
from tests.support.keys import leaked_keys
from tests.support.stored import (
    ALICE,
    BOB,
    HEAD,
    TAIL,
    append,
    create,
    expire_lease,
    finish,
    log_of,
    numbered,
    record_of,
    renew,
    try_lease,
)

MAX_ATTEMPTS = 2
STATUSES = ["completed", "failed", "incomplete", "cancelled"]


@dataclass
class Expected:
    """What must be true of one response."""

    id: str
    stream: bool
    status: str = "queued"
    place: str = "queued"
    """queued, leased, ran out, or nowhere: it has ended or was deleted."""
    token: str = ""
    released: str = ""
    attempt: int = 0
    epoch: int = 1
    log: list[str] = field(default_factory=lambda: numbered(1))
    deleted: bool = False

    @property
    def last(self) -> int:
        return len(self.log) - 1

    def refusal(self, lease: Lease) -> Outcome | None:
        """Why a step under this lease must be refused."""
        if self.deleted:
            return Outcome.GONE
        if self.status in TERMINAL:
            return Outcome.OVER
        return None if self.token == lease.token else Outcome.STALE

    def leased(self, token: str) -> Verdict:
        self.attempt, self.token, self.place = self.attempt + 1, token, "leased"
        has_output = self.last > 2
        if self.attempt > MAX_ATTEMPTS or (has_output and self.stream):
            verdict = Verdict.LOST
        else:
            verdict = Verdict.RUN
            if has_output:
                self.epoch, self.log = self.epoch + 1, numbered(2)
        if self.status == "queued":
            self.status, self.log = "in_progress", numbered(2)
        return verdict

    def end(self, status: str) -> None:
        self.status, self.place = status, "nowhere"
        self.log.append(f"{self.last + 1} {status}")


class World:
    """The store, and what is expected of it. Each step does the same to both; `n` and `m` choose."""

    def __init__(self, store: Store, admin: redis.Redis) -> None:
        self.store = store
        self.admin = admin
        self.all: dict[str, Expected] = {}
        self.leases: list[Lease] = []

    def one(self, n: int) -> Expected | None:
        return list(self.all.values())[n % len(self.all)] if self.all else None

    def lease_of(self, n: int) -> tuple[Lease, Expected] | None:
        """Any lease that there ever was, the latest first."""
        if not self.leases:
            return None
        lease = self.leases[-1 - n % len(self.leases)]
        return lease, self.all[lease.id]

    async def create(self, n: int, m: int) -> None:
        stream = m % 3 == 0
        response_id = await create(self.store, (ALICE, BOB)[n % 2], stream=stream, begin_within_s=m % 2 * 3600)
        self.all[response_id] = Expected(response_id, stream)

    async def lease(self, n: int, m: int) -> None:
        reclaim = m % 4 > 0
        lease = await try_lease(self.store, reclaim=reclaim, max_attempts=MAX_ATTEMPTS)
        ran_out = {one.id for one in self.all.values() if one.place == "ran out"}
        queued = {one.id for one in self.all.values() if one.place == "queued"}
        candidates = (ran_out if reclaim else set()) or queued
        if lease is None:
            assert not candidates
            return
        assert lease.id in candidates
        one = self.all[lease.id]
        verdict = one.leased(lease.token)
        assert (lease.verdict, lease.epoch, lease.attempt, lease.last, lease.stream) == (
            (verdict, one.epoch, one.attempt, one.last, one.stream)
        )
        self.leases.append(lease)

    async def append(self, n: int, m: int) -> None:
        if (chosen := self.lease_of(n)) is None:
            return
        lease, one = chosen
        kind, length = m % 4, m % 3
        first = {0: one.last, 1: one.last + 2}.get(kind, one.last + 1)
        last = one.last if kind == 0 else first + length
        step = await append(self.store, lease, first, last)
        if refusal := one.refusal(lease):
            assert step == Step(refusal, -1 if one.deleted else one.last)
        elif kind == 1:
            assert step == Step(Outcome.GAP, one.last)
        else:
            one.log += [str(number) for number in range(one.last + 1, last + 1)]
            one.place = "leased"
            assert step == Step(Outcome.OK, one.last)

    async def finish(self, n: int, m: int) -> None:
        if (chosen := self.lease_of(n)) is None:
            return
        lease, one = chosen
        status, too_far = STATUSES[m % 4], m == 9
        step = await finish(self.store, lease, one.last + 1 + too_far, status)
        if refusal := one.refusal(lease):
            if refusal is Outcome.OVER and (one.token, one.status) == (lease.token, status):
                refusal = Outcome.OK  # for the store, a call that arrives again
            assert step == Step(refusal, -1 if one.deleted else one.last)
        elif too_far:
            assert step == Step(Outcome.GAP, one.last)
        else:
            one.end(status)
            assert step == Step(Outcome.OK, one.last)

    async def renew(self, n: int, m: int) -> None:
        if chosen := self.lease_of(n):
            lease, one = chosen
            refusal = one.refusal(lease)
            assert await renew(self.store, lease) is (refusal or Outcome.OK)
            if refusal is None:
                one.place = "leased"

    async def release(self, n: int, m: int) -> None:
        if chosen := self.lease_of(n):
            lease, one = chosen
            outcome, refusal = await self.store.jobs.release(lease), one.refusal(lease)
            if refusal is None:
                one.token, one.released = "", lease.token
                one.attempt, one.place = one.attempt - 1, "queued"
            elif refusal is Outcome.STALE and one.released == lease.token:
                refusal = None
            assert outcome is (refusal or Outcome.OK)

    async def expire(self, n: int, m: int) -> None:
        if (one := self.one(n)) and one.place == "leased":
            expire_lease(self.admin, self.store, one.id)
            one.place = "ran out"

    async def cancel(self, n: int, m: int) -> None:
        if (one := self.one(n)) is None or one.deleted:
            return
        outcome = await self.store.responses.cancel(await record_of(self.store, one.id), HEAD, TAIL)
        if one.status not in TERMINAL:
            one.end("cancelled")
            one.token = ""
        assert outcome is (CancelOutcome.CANCELLED if one.status == "cancelled" else CancelOutcome.OVER)

    async def delete(self, n: int, m: int) -> None:
        if (one := self.one(n)) is None or one.deleted or m > 4:  # or there is soon nothing left
            return
        assert await self.store.responses.delete(await record_of(self.store, one.id), uuid4().hex)
        one.deleted, one.place = True, "nowhere"

    async def check(self) -> None:
        for one in self.all.values():
            if one.deleted:
                assert await self.store.responses.find(one.id) is None
                continue
            record = await record_of(self.store, one.id)
            assert (record.status, record.cursor) == (one.status, Cursor(one.epoch, one.last))
            log = await log_of(self.store, one.id)
            assert log == one.log
            # The same once more, without trusting the model.
            numbers, _, endings = zip(*(event.partition(" ") for event in log), strict=True)
            assert [int(number) for number in numbers] == list(range(len(log)))
            assert [ending for ending in endings if ending] == ([record.status] if record.terminal else [])
            assert bool(endings[-1]) is record.terminal
        assert leaked_keys(self.admin) == []


STEPS = [
    World.create,
    World.lease,
    World.append,
    World.finish,
    World.renew,
    World.release,
    World.expire,
    World.cancel,
    World.delete,
]
# What makes a life is drawn more often than what ends it.
CHOICES = [*STEPS, World.create, World.lease, World.lease, World.append, World.append, World.expire]
Course = list[tuple[int, int, int]]


@given(
    course=st.lists(
        st.tuples(st.integers(0, len(CHOICES) - 1), st.integers(0, 9), st.integers(0, 9)), min_size=20, max_size=80
    )
)
@settings(
    max_examples=150,
    deadline=None,
    # One server for all examples: each of them empties it first.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_course_of_events_keeps_logs_whole_and_ends_final(
    store: Store, admin: redis.Redis, course: Course
) -> None:
    admin.flushdb()
    world = World(store, admin)
    for choice, n, m in course:
        await CHOICES[choice](world, n, m)
    await world.check()
