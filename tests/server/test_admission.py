"""Overload is refused early and truly; below it nobody notices that it is watched for."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from server.admission import ALWAYS_ADMITTED, LONGEST_TURN_S, MEASURED_OVER, Admission
from server.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def enter(admission: Admission, stack: AsyncExitStack, count: int) -> None:
    for _ in range(count):
        await stack.enter_async_context(admission.turn())


async def store(admission: Admission, clock: Clock, count: int, per_second: float) -> None:
    """So many others come and go at this rate, while those that wait go on waiting."""
    for _ in range(count):
        clock.now += 1 / per_second
        async with admission.turn():
            pass


async def test_a_crowd_is_admitted_for_as_long_as_its_turn_comes_in_time() -> None:
    clock = Clock()
    admission = Admission(clock)
    async with AsyncExitStack() as stack:
        await enter(admission, stack, 5000)
        await store(admission, clock, 2 * MEASURED_OVER, per_second=700)
        await enter(admission, stack, 1900)
        with pytest.raises(RateLimited) as refused:
            await enter(admission, stack, 300)
        assert 1 <= int(refused.value.retry_after_s or 0) <= 2
        assert "to store before this one" in refused.value.message


async def test_the_time_that_is_told_is_that_of_the_queue() -> None:
    clock = Clock()
    admission = Admission(clock)
    turns = [admission.turn() for _ in range(1000)]
    async with AsyncExitStack() as stack:
        for turn in turns[60:]:
            await stack.enter_async_context(turn)
        for turn in turns[:60]:
            await turn.__aenter__()
        for turn in turns[:60]:
            clock.now += 1 / 10
            await turn.__aexit__(None, None, None)
        with pytest.raises(RateLimited) as refused:
            await enter(admission, stack, 1)
        assert int(refused.value.retry_after_s or 0) == pytest.approx(940 / 10 - LONGEST_TURN_S, abs=4)


async def test_few_are_always_admitted_also_where_the_store_stands_still() -> None:
    clock = Clock()
    admission = Admission(clock)
    async with AsyncExitStack() as stack:
        await enter(admission, stack, ALWAYS_ADMITTED - 1)
        clock.now += 3600
        await enter(admission, stack, 1)
        with pytest.raises(RateLimited):
            await enter(admission, stack, 1)


async def test_an_idle_time_says_nothing_of_the_rate() -> None:
    clock = Clock()
    admission = Admission(clock)
    await store(admission, clock, 5, per_second=1)
    clock.now += 86400
    async with AsyncExitStack() as stack:
        await enter(admission, stack, 3000)
