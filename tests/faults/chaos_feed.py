"""What the subscribers of the chaos run prove: each transition was told once, in order, to all who may know of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.faults.chaos_jobs import Job
from tests.support.replica import ALICE, BOB, MASTER_KEY
from tests.support.subscribers import ENDS, Patient, faults_of, lives_in

QUEUED, IN_PROGRESS, DELETED = "response.queued", "response.in_progress", "response.deleted"
VISIT_EVENTS = {ALICE: 0, BOB: 25, MASTER_KEY: 60}
"""After so many events a subscriber leaves, and comes again; 0: only when it is cut off."""
NAMES = {ALICE: "alice", BOB: "bob"}


@asynccontextmanager
async def running_subscribers(urls: Callable[[], Sequence[str]]) -> AsyncIterator[dict[str, Patient]]:
    """One for each key, from before the first response on."""
    async with AsyncExitStack() as stack:
        yield {
            key: await stack.enter_async_context(Patient(urls, key, hangs_up_after=count))
            for key, count in VISIT_EVENTS.items()
        }


def have_been_told(subscribers: Mapping[str, Patient], jobs: Sequence[Job]) -> bool:
    """Whether they know how all of these have ended, and that those which were deleted are gone."""
    for key, subscriber in subscribers.items():
        ended = {event["data"]["id"] for event in subscriber.events if event["type"] in ENDS}
        gone = {event["data"]["id"] for event in subscriber.events if event["type"] == DELETED}
        for job in jobs:
            if key in (job.key, MASTER_KEY) and len(job.ids) == 1 and job.id not in (gone if job.deleted else ended):
                return False
    return True


def faults_of_feeds(subscribers: Mapping[str, Patient], jobs: Sequence[Job], begun: Mapping[int, bool]) -> list[str]:
    """All that is wrong about what they were told.

    Args:
        begun: whether the log of a job's response says that it was ever in progress, by the job's number
    """
    found = []
    for key, subscriber in subscribers.items():
        whose = f"the subscriber of {NAMES.get(key, 'all')}"
        if subscriber.broke:
            found.append(f"{whose} broke: {subscriber.broke!r}")
        found += [f"{whose}: {fault}" for fault in faults_of(subscriber.events)]
        known = [job for job in jobs if key in (job.key, MASTER_KEY) and len(job.ids) == 1]
        lives = lives_in(subscriber.events)
        if strange := lives.keys() - {job.id for job in known}:
            found.append(f"{whose} was told of {strange}, which nobody knows")
        for job in known:
            found += [
                f"{whose}: {job} {job.id}: {fault}" for fault in _faults_of_life(job, lives.get(job.id, []), begun)
            ]
    found += _differences(subscribers)
    return found


def _faults_of_life(job: Job, life: list[str], begun: Mapping[int, bool]) -> Iterator[str]:
    if life[:1] != [QUEUED]:
        yield f"does not begin with {QUEUED}: {life}"
    if (life[-1:] == [DELETED]) != job.deleted:
        yield f"deleted is {job.deleted}, but it was told {life}"
    ends = [kind for kind in life if kind in ENDS]
    seen = {f"response.{response['status']}" for response in job.terminals}
    if not job.deleted and len(ends) != 1:
        yield f"has not one end: {life}"
    if seen - set(ends):
        yield f"its client has seen {seen}, but it was told {life}"
    if job.number in begun and begun[job.number] != (IN_PROGRESS in life):
        yield f"was in progress: {begun[job.number]}, but it was told {life}"


def _differences(subscribers: Mapping[str, Patient]) -> Iterator[str]:
    """Whether an owner and the master were told the same in the same order."""
    for key, owner in NAMES.items():
        masters = [_without_owner(event) for event in subscribers[MASTER_KEY].events if event["data"]["owner"] == owner]
        if masters != subscribers[key].events:
            yield f"{owner} was not told what the master was told of {owner}"


def _without_owner(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "data": {name: value for name, value in event["data"].items() if name != "owner"}}
