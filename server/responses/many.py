"""Many responses at once: one wait for any or all of them to end, and an outcome of its own for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from contextlib import aclosing
from enum import StrEnum
from typing import Any, TypeVar

from server.hub import Hub
from storage import End, Record, Store, StoreError, by_shard

AT_ONCE = 20
"""How many responses of one request are read, fetched or cancelled at the same time: one request must not take all
connections to the store or to a provider."""

T = TypeVar("T")


class Until(StrEnum):
    """What ends a wait for many responses."""

    ANY = "any"
    """One of them has ended."""
    ALL = "all"
    """All of them have ended."""


async def each(ids: Collection[str], ask: Callable[[str], Awaitable[T]]) -> list[T]:
    """What `ask` returns for each id, in order. At most `AT_ONCE` calls run at the same time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(response_id: str) -> T:
        async with turns:
            return await ask(response_id)

    return await asyncio.gather(*map(one, ids))


async def find_each(store: Store, ids: Collection[str]) -> dict[str, Record | StoreError | None]:
    """The record of each id; None where there is none, and the error where its shard can't be read."""
    shards = list(by_shard(ids, store.jobs.shards.of).values())
    answers = await asyncio.gather(*map(store.responses.find_many, shards), return_exceptions=True)
    found: dict[str, Record | StoreError | None] = {}
    for mine, answer in zip(shards, answers, strict=True):
        if isinstance(answer, StoreError):
            found.update(dict.fromkeys(mine, answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.update(zip(mine, answer, strict=True))
    return found


async def watch_ends(store: Store, hub: Hub, running: set[str], until: Until, seconds: float) -> None:
    """Remove each response from `running` once it has ended or is gone.

    Returns when one was removed (`Until.ANY`) or all were (`Until.ALL`), when the seconds are over, or when the process
    drains. Only ends wake it, and each look reads the records of those still running with one call for each shard.

    Raises:
        StoreUnavailable: the store was away when the seconds were over

    """

    async def read() -> list[Record | None]:
        return await store.responses.find_many(list(running))

    topics = [End(response_id) for response_id in running]
    looks = hub.observe(topics, read, deadline=asyncio.get_running_loop().time() + seconds)
    async with aclosing(looks):
        async for records in looks:
            left = {record.id for record in records if record is not None and not record.terminal}
            ended = len(left) < len(running)
            running.intersection_update(left)
            if not running or (ended and until is Until.ANY):
                return


async def side_by_side(waits: Iterable[Coroutine[Any, Any, None]], until: Until) -> None:
    """Run several waits until one (`Until.ANY`) or all (`Until.ALL`) of them return, and stop the others.

    Raises:
        Exception: what the first wait that fails raises

    """
    tasks = [asyncio.create_task(wait, name="wait for many") for wait in waits]
    if not tasks:
        return
    try:
        enough = asyncio.FIRST_COMPLETED if until is Until.ANY else asyncio.FIRST_EXCEPTION
        done, _ = await asyncio.wait(tasks, return_when=enough)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
