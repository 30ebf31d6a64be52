"""Whose turn it is: cool-downs, the least in flight, and places that are handed over in order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest

from server.errors import RateLimited
from server.upstream.deployments import Deployment
from server.upstream.health import Health, Rules
from tests.support.deployments import deployment
from tests.support.waiting import wait_until


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def limited(name: str, limit: int) -> Deployment:
    return deployment(name, max_parallel_requests=limit)


A, B = deployment("a"), deployment("b")
BOTH = [A, B]
SINGLE = limited("single", 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(Rules(allowed_fails=0, cooldown_s=5), clock=clock)


def chosen(health: Health, tried: tuple[str, ...] = ()) -> set[str]:
    """Whom it may be: ties are random."""
    return {health.choose(BOTH, tried).id for _ in range(50)}


# Cool-downs.


def test_all_are_healthy_at_first_and_a_tie_is_random(health: Health) -> None:
    assert chosen(health) == {"a", "b"}


def test_one_that_failed_is_not_chosen_until_it_has_cooled_down(health: Health, clock: Clock) -> None:
    health.failed(A)
    assert chosen(health) == {"b"}
    clock.now += 4.9
    assert chosen(health) == {"b"}
    clock.now += 0.1
    assert chosen(health) == {"a", "b"}


def test_of_cooling_ones_the_least_recently_cooled_is_tried(health: Health, clock: Clock) -> None:
    health.failed(A)
    clock.now += 1
    health.failed(B)
    assert chosen(health) == {"a"}
    clock.now += 1
    health.failed(A)
    assert chosen(health) == {"b"}


def test_it_cools_down_after_more_failures_than_allowed_within_a_minute(clock: Clock) -> None:
    health = Health(Rules(allowed_fails=2, cooldown_s=5), clock=clock)
    for pause_s in (0, 40, 30):
        clock.now += pause_s
        health.failed(A)
        assert health.is_healthy(A), "the first of the three is forgotten after a minute"
    health.failed(A)
    assert not health.is_healthy(A)


def test_a_limited_one_cools_at_once_for_as_long_as_it_asks(clock: Clock) -> None:
    health = Health(Rules(allowed_fails=5, cooldown_s=5), clock=clock)
    health.failed(A, retry_after_s=30, limited=True)
    clock.now += 29
    assert not health.is_healthy(A)
    clock.now += 1
    assert health.is_healthy(A)


def test_without_a_cooldown_time_none_cools(clock: Clock) -> None:
    health = Health(Rules(cooldown_s=0), clock=clock)
    health.failed(A)
    assert chosen(health) == {"a", "b"}


def test_a_deployment_may_have_a_cooldown_time_of_its_own(health: Health, clock: Clock) -> None:
    longer = replace(A, cooldown_s=60)
    health.failed(longer)
    clock.now += 59
    assert not health.is_healthy(longer)
    clock.now += 1
    assert health.is_healthy(longer)
    health.failed(longer, retry_after_s=0.5, limited=True)
    clock.now += 59
    assert not health.is_healthy(longer), "its own goes before what the provider asks"


def test_cooldowns_can_be_switched_off(clock: Clock) -> None:
    health = Health(Rules(cooldown_s=None), clock=clock)
    health.failed(A, retry_after_s=30, limited=True)
    assert chosen(health) == {"a", "b"}


async def test_one_that_comes_back_gets_one_call_until_it_answers(health: Health, clock: Clock) -> None:
    health.failed(A)
    clock.now += 5
    async with health.place([A]):
        assert chosen(health) == {"b"}
        health.succeeded(A)
        assert health.is_healthy(A)
    health.failed(A)
    clock.now += 5
    async with health.place([A]):
        assert not health.is_healthy(A)
    assert health.is_healthy(A), "a trial that was given up says nothing: the next one may try"


# The least in flight.


async def test_the_least_in_flight_is_chosen(health: Health) -> None:
    async with health.place([A]):
        assert chosen(health) == {"b"}
        async with health.place([B]), health.place([B]):
            assert chosen(health) == {"a"}
    assert (health.in_flight(A), health.in_flight(B)) == (0, 0)


def test_one_that_this_request_did_not_try_goes_first(health: Health) -> None:
    assert chosen(health, ("a",)) == {"b"}
    assert chosen(health, ("a", "b", "a")) == {"b"}
    assert chosen(health, ("a", "b")) == {"a", "b"}


async def test_a_free_place_goes_before_a_queue(health: Health) -> None:
    async with AsyncExitStack() as held:
        await held.enter_async_context(health.place([SINGLE]))
        for _ in range(3):
            await held.enter_async_context(health.place([A]))
        assert health.choose([SINGLE, A]) is A


# Limits of the minute.


async def test_one_over_its_rpm_is_passed_over_until_the_minute_ends(health: Health, clock: Clock) -> None:
    limited = replace(A, rpm=2, order=1)
    for expected in ("a", "a", "b", "b"):
        async with health.place([limited, B]) as taken:
            assert taken.id == expected
    async with health.place([limited]) as taken:
        assert taken is limited, "the only one is never refused"
    clock.now += 60
    async with health.place([limited, B]) as taken:
        assert taken is limited


def test_one_that_spent_its_tokens_is_passed_over(health: Health) -> None:
    limited = replace(A, tpm=100, order=1)
    for spent, expected in ((99, "a"), (1, "b")):
        health.spent(limited, spent)
        assert health.choose([limited, B]).id == expected


# Places.


async def test_places_are_handed_over_in_order(health: Health) -> None:
    order: list[int] = []

    async def use(number: int) -> None:
        async with health.place([SINGLE]):
            assert health.in_flight(SINGLE) == 1
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number) for number in range(10)))
    assert order == list(range(10))
    assert health.in_flight(SINGLE) == 0


async def test_patience_ends_in_a_refusal_that_says_when_to_come_back(health: Health) -> None:
    async with health.place([SINGLE]):
        with pytest.raises(RateLimited) as refused:
            async with health.place([SINGLE], patience_s=0.01):
                pytest.fail("there is no place")
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "5"})
    async with health.place([SINGLE], patience_s=0.01):
        assert health.in_flight(SINGLE) == 1


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_cancelled_waiter_takes_no_place(health: Health, *, handed_over: bool) -> None:
    async def use() -> None:
        async with health.place([SINGLE]):
            pass

    async with AsyncExitStack() as held:
        await held.enter_async_context(health.place([SINGLE]))
        waiter = asyncio.create_task(use())
        await asyncio.sleep(0)
        if handed_over:
            await held.aclose()  # the place is the waiter's now, who does not know it yet
        waiter.cancel()
        await asyncio.wait([waiter])
        assert waiter.cancelled()
    assert health.in_flight(SINGLE) == 0
    await asyncio.wait_for(use(), 1)


async def test_who_waits_for_one_that_cools_down_is_served_elsewhere(health: Health) -> None:
    other = limited("other", 1)
    served: list[str] = []

    async def use() -> None:
        async with health.place([SINGLE, other]) as taken:
            served.append(taken.id)

    async with AsyncExitStack() as held:
        await held.enter_async_context(health.place([SINGLE]))
        async with health.place([other]):
            waiters = [asyncio.create_task(use()) for _ in range(4)]
            await asyncio.sleep(0)
            health.failed(SINGLE)
        await wait_until(lambda: len(served) == 4)
        await asyncio.gather(*waiters)
    assert served == ["other"] * 4
