"""Patience with the server alone: not with ourselves, and not for longer than it is silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from storage.patience import Patience, Turns


async def test_what_takes_longer_than_its_time_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Patience(0.1).limit():
            await asyncio.sleep(5)
    assert 0.09 < time.monotonic() - began < 2


async def test_what_is_in_time_is_left_alone() -> None:
    async with Patience(0.1).limit():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.15)


async def test_time_in_which_this_process_did_not_listen_does_not_count() -> None:
    async with Patience(0.1).limit():
        time.sleep(0.5)
        await asyncio.sleep(0.01)


async def test_a_cancellation_stays_one() -> None:
    async def wait() -> None:
        async with Patience(30).limit():
            await asyncio.sleep(30)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@asynccontextmanager
async def turn(turns: Turns) -> AsyncIterator[None]:
    await turns.take()
    silent = False
    try:
        yield
    except TimeoutError:
        silent = True
        raise
    finally:
        turns.give_back(silent=silent)


async def test_turns_come_in_order_and_no_more_than_so_many_at_once() -> None:
    turns, running, order = Turns(2), 0, []

    async def work(number: int) -> None:
        nonlocal running
        async with turn(turns):
            running += 1
            assert running <= 2
            order.append(number)
            await asyncio.sleep(0.001)
            running -= 1

    await asyncio.gather(*map(work, range(20)))
    assert order == list(range(20))


async def test_a_turn_that_is_given_up_as_it_comes_is_passed_on() -> None:
    turns = Turns(1)
    taken = asyncio.Event()

    async def take() -> None:
        async with turn(turns):
            taken.set()

    async with turn(turns):
        first, second = asyncio.create_task(take()), asyncio.create_task(take())
        await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(1):
        await second
    assert taken.is_set()
    async with asyncio.timeout(1), turn(turns):
        pass


async def test_who_waits_while_the_server_is_silent_is_told_with_the_first() -> None:
    turns, patience = Turns(1), Patience(0.2)

    async def ask() -> None:
        async with turn(turns), patience.limit():
            await asyncio.sleep(30)

    began = time.monotonic()
    outcomes = await asyncio.gather(*(ask() for _ in range(50)), return_exceptions=True)
    assert all(isinstance(outcome, TimeoutError) for outcome in outcomes)
    assert time.monotonic() - began < 2
    async with asyncio.timeout(1), turn(turns):
        pass
