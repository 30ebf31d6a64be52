"""The tries of a request: how many there are, and how long it waits between two."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import UpstreamUnavailable
from server.upstream.health import Health, Rules
from server.upstream.tries import Tries
from tests.support.deployments import deployment

ERROR = UpstreamUnavailable("down", begun=False)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    found: list[float] = []

    async def sleep(pause_s: float) -> None:
        found.append(pause_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


async def tried(tries: Tries) -> list[str]:
    """The deployments of all tries, each of which fails."""
    found = []
    while True:
        async with tries.place() as chosen:
            found.append(chosen.id)
        try:
            await tries.again(ERROR)
        except UpstreamUnavailable:
            return found


@pytest.mark.parametrize(("own", "general", "expected"), [(None, 2, 3), (0, 2, 1), (4, 2, 5), (1, 0, 2)])
async def test_a_deployment_says_how_often_a_request_is_repeated(
    own: int | None, general: int, expected: int, pauses: list[float]
) -> None:
    assert len(await tried(Tries(Health(), [deployment("a", num_retries=own)], general))) == expected
    assert len(pauses) == expected - 1


@pytest.mark.parametrize("own", [None, 0, 7])
async def test_what_the_request_asks_for_goes_before_what_the_deployment_says(
    own: int | None, pauses: list[float]
) -> None:
    assert len(await tried(Tries(Health(), [deployment("a", num_retries=own)], 5, wished=1))) == 2


async def test_the_first_one_tried_decides(pauses: list[float]) -> None:
    both = [deployment("a", order=1, num_retries=1), deployment("b", order=2, num_retries=9)]
    assert await tried(Tries(Health(), both, 5)) == ["a", "b"]


async def test_a_retry_waits_at_least_as_long_as_configured_where_there_is_no_other(pauses: list[float]) -> None:
    await tried(Tries(Health(Rules(least_pause_s=30)), [deployment("a")], 2))
    assert pauses == [30, 30]
    pauses.clear()
    await tried(Tries(Health(Rules(least_pause_s=30)), [deployment("a"), deployment("b")], 1))
    assert pauses[0] < 1
