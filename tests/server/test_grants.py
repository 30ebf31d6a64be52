"""Grants are renewed before they end, by one renewal at a time, and a failure is told to all who wait."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest

from server.errors import UpstreamUnavailable
from server.upstream.credential import STATIC, Bearer, Grant, NotGranted, Outgoing
from server.upstream.grants import EARLY_S, PAUSE_S, YOUNG_S, Grants
from tests.support.waiting import wait_until

SOME = Outgoing("POST", "http://h/v1/responses", b"{}")


@dataclass(eq=False)
class Scripted:
    """A credential that grants `token-1`, `token-2` and so on, when it is let."""

    lifetime_s: float | None = 3600.0
    told: str = "a scripted credential"
    fails: Exception | None = None
    let: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def obtain(self, _http: aiohttp.ClientSession) -> Grant:
        self.asked += 1
        number = self.asked
        await self.let.wait()
        if self.fails:
            raise self.fails
        return Bearer(f"token-{number}", self.lifetime_s)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """Grants with a clock that only the test moves."""

    def __init__(self) -> None:
        self.clock, self.credential = Clock(), Scripted()
        self.grants = Grants(Mock(spec=aiohttp.ClientSession), self.clock)

    async def token(self) -> str:
        headers = await self.grants.headers(self.credential, SOME)
        return headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
async def setting() -> Any:
    made = Setting()
    yield made
    await made.grants.close()


async def test_a_key_is_no_grant(setting: Setting) -> None:
    assert await setting.grants.headers(STATIC, SOME) == {}


async def test_all_who_wait_share_one_renewal(setting: Setting) -> None:
    waiting = [asyncio.create_task(setting.token()) for _ in range(20)]
    await wait_until(lambda: setting.credential.asked == 1, what="it is asked")
    setting.credential.let.set()
    assert set(await asyncio.gather(*waiting)) == {"token-1"}
    assert setting.credential.asked == 1


async def test_a_renewal_goes_on_when_its_first_client_hangs_up(setting: Setting) -> None:
    first, second = asyncio.create_task(setting.token()), asyncio.create_task(setting.token())
    await wait_until(lambda: setting.credential.asked == 1, what="it is asked")
    first.cancel()
    setting.credential.let.set()
    assert await second == "token-1"


async def test_a_grant_is_renewed_before_it_ends_while_it_still_serves(setting: Setting) -> None:
    setting.credential.let.set()
    assert await setting.token() == "token-1"
    setting.clock.now += 3600 - EARLY_S - 1
    assert await setting.token() == "token-1"
    assert setting.credential.asked == 1
    setting.clock.now += 2
    setting.credential.let.clear()
    assert await setting.token() == "token-1", "nobody waits for the renewal"
    await wait_until(lambda: setting.credential.asked == 2, what="it is renewed")
    assert await setting.token() == "token-1"
    setting.credential.let.set()
    await wait_until(lambda: not setting.grants._renewals, what="the renewal is done")
    assert await setting.token() == "token-2"


async def test_a_short_lived_grant_serves_for_half_of_its_time_before_it_is_renewed(setting: Setting) -> None:
    setting.credential.lifetime_s = 60.0
    setting.credential.let.set()
    await setting.token()
    setting.clock.now += 29
    await setting.token()
    assert setting.credential.asked == 1
    setting.clock.now += 2
    await setting.token()
    await wait_until(lambda: setting.credential.asked == 2, what="it is renewed")


async def test_a_grant_that_has_ended_serves_no_more(setting: Setting) -> None:
    setting.credential.let.set()
    await setting.token()
    setting.clock.now += 3601
    assert await setting.token() == "token-2"


async def test_a_failure_is_told_to_all_who_wait_and_the_next_call_tries_again(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pollux.upstream")
    setting.credential.fails = NotGranted("invalid_client")
    setting.credential.let.set()
    answers = await asyncio.gather(*(setting.token() for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {UpstreamUnavailable}
    assert setting.credential.asked == 1
    assert [(r.getMessage(), vars(r)["error"]) for r in caplog.records] == [
        ("a scripted credential granted no access", "invalid_client")
    ]
    setting.credential.fails = None
    assert await setting.token() == "token-2"


async def test_of_an_unforeseen_error_only_its_kind_is_logged(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.credential.fails = ValueError("sk-secret")
    setting.credential.let.set()
    with pytest.raises(UpstreamUnavailable):
        await setting.token()
    assert vars(caplog.records[0])["error"] == "ValueError"
    assert "sk-secret" not in caplog.text


async def test_a_failed_renewal_hurts_nobody_while_the_old_grant_serves(setting: Setting) -> None:
    setting.credential.let.set()
    await setting.token()
    setting.credential.fails = NotGranted("out of order")
    setting.clock.now += 3600 - EARLY_S + 1
    assert await setting.token() == "token-1"
    await wait_until(lambda: setting.credential.asked == 2 and not setting.grants._renewals, what="it failed")
    assert await setting.token() == "token-1"
    assert not setting.grants._renewals, "it pauses after a failure"
    setting.clock.now += PAUSE_S + 1
    assert await setting.token() == "token-1"
    await wait_until(lambda: setting.credential.asked == 3, what="it is tried again")


async def test_a_server_that_does_not_answer_is_given_up(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.upstream.grants.OBTAINED_WITHIN_S", 0.05)
    with pytest.raises(UpstreamUnavailable):
        await setting.token()


async def test_a_refused_grant_is_replaced_unless_it_is_young(setting: Setting) -> None:
    setting.credential.let.set()
    await setting.token()
    setting.grants.refused(setting.credential)
    assert await setting.token() == "token-1", "a new one would be refused too"
    setting.clock.now += YOUNG_S + 1
    setting.grants.refused(setting.credential)
    assert await setting.token() == "token-2"
