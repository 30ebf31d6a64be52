"""A provider's refusal: how long it asks us to wait, in whatever form it says so."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.errors import UpstreamRefusal
from server.upstream.answer import Answer
from server.upstream.refusals import refusal_of, retry_after_of
from tests.support.deployments import deployment


async def pause_after(message: str = "slow down", **headers: str) -> float | None:
    async def beginning(_limit: int) -> bytes:
        return b'{"error": {"message": "%b"}}' % message.encode()

    named: Any = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = SimpleNamespace(status=429, headers=named, passed_on={}, beginning=beginning)
    error = await refusal_of(deployment("d"), cast("Answer", answer))
    assert isinstance(error, UpstreamRefusal)
    return retry_after_of(error)


@pytest.mark.parametrize(
    ("stated", "pause_s"),
    [
        *(("7", 7), ("0.5", 0.5), (" 7 ", 7), ("3600", 60), ("-5", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)),
        *((text, None) for text in ("", "soon", "nan", "inf", "1e400", "99:99")),
        *((f"Wed, 21 Oct {year} 07:28:00 GMT", None) for year in ("99999999999999999999", "10000")),
    ],
)
async def test_a_retry_after_of_any_form(stated: str, pause_s: float | None) -> None:
    assert await pause_after(Retry_After=stated) == pause_s


async def test_a_date_to_come() -> None:
    date = format_datetime(datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=30), usegmt=True)
    pause_s = await pause_after(Retry_After=date)
    assert pause_s is not None
    assert 25 < pause_s <= 30


async def test_the_most_exact_statement_counts() -> None:
    assert await pause_after("try again in 3s", Retry_After="2", retry_after_ms="1500") == 1.5
    assert await pause_after("try again in 3s", Retry_After="2", retry_after_ms="soon") == 2
    assert await pause_after("try again in 3s", Retry_After="soon") == 3
    assert await pause_after(f"try again in {'9' * 400}s") == 60
