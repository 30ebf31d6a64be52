"""The chaos run in its short form. `make chaos` runs the long one, with a new seed each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos import Options, run_chaos
from tests.faults.chaos_faults import KINDS
from tests.faults.chaos_store import OneServer

SEED = 13
"""Draws each kind of misfortune once."""


@pytest.mark.slow
async def test_no_promise_is_broken_while_replicas_and_the_store_are_killed_paused_and_restarted(
    tmp_path: Path,
) -> None:
    report = await run_chaos(Options(seed=SEED, jobs=60), tmp_path)
    assert report.violations == [], report.table()
    assert report.faults.keys() == KINDS.keys() | OneServer.kinds.keys()


@pytest.mark.slow
async def test_a_rolling_restart_under_load_loses_nothing_and_shows_no_client_more_than_an_aborted_stream(
    tmp_path: Path,
) -> None:
    report = await run_chaos(Options(seed=SEED, jobs=60, rolling=True), tmp_path)
    assert report.violations == [], report.table()
    assert report.faults == {"SIGTERM": 3}
    assert "worker_lost" not in report.outcomes.values()
