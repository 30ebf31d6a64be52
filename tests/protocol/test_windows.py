"""Completion windows: which a request has, and how long its job may wait."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidType, InvalidValue
from server.protocol.windows import begin_within_s, window_s

HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("body", "hours"),
    [
        ({}, 0),
        ({"background_options": None}, 0),
        ({"background_options": {"completion_window": "soonest"}}, 0),
        ({"background_options": {"completion_window": "2h"}}, 2),
        ({"background_options": {"completion_window": "8h"}}, 8),
        ({"service_tier": "flex"}, 8),
        ({"service_tier": "flex", "background_options": {"continuation_id": "c"}}, 8),
        ({"service_tier": "flex", "background_options": {"completion_window": "2h"}}, 2),
        ({"service_tier": ["flex"]}, 0),
        ({"service_tier": "default"}, 0),
    ],
)
def test_the_window_of_a_request(body: dict[str, Any], hours: float) -> None:
    assert window_s(body) == hours * HOUR_S


@pytest.mark.parametrize("wrong", [5, True, [], {}, ["2h"]])
def test_a_window_is_a_string(wrong: Any) -> None:
    with pytest.raises(InvalidType) as refused:
        window_s({"background_options": {"completion_window": wrong}})
    assert refused.value.param == "background_options.completion_window"


def test_only_the_three_windows_exist() -> None:
    with pytest.raises(InvalidValue):
        window_s({"background_options": {"completion_window": "24h"}})


@pytest.mark.parametrize(
    ("window_h", "longest_run_h", "wait_h"),
    [(0, 1, 0), (2, 1, 1), (8, 1, 7), (2, 0.5, 1.5), (2, 3, 1), (8, 6, 4), (8, 24, 4)],
)
def test_a_window_leaves_a_run_its_time_but_never_more_than_half(
    window_h: float, longest_run_h: float, wait_h: float
) -> None:
    assert begin_within_s(window_h * HOUR_S, longest_run_h * HOUR_S) == wait_h * HOUR_S
