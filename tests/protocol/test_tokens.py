"""The tokens that a provider tells, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from server.protocol.tokens import MOST, Price, Tokens, tokens_in
from tests.support.generated import json_values, moderate


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            {
                "input_tokens": 10,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 5},
            },
            Tokens(10, 4, 7, 5),
        ),
        ({"input_tokens": 10, "output_tokens": 7}, Tokens(10, 0, 7, 0)),
        ({"input_tokens": None, "input_tokens_details": None}, Tokens(0, 0, 0, 0)),
        ({"input_tokens": True, "output_tokens": "7"}, Tokens(0, 0, 0, 0)),
        ({"input_tokens": -1, "output_tokens": MOST + 1}, Tokens(0, 0, 0, 0)),
        (None, None),
        ([], None),
    ],
)
def test_tokens_are_read_and_nonsense_is_none(usage: Any, tokens: Tokens | None) -> None:
    assert tokens_in({"usage": usage}) == tokens


def test_an_object_without_usage_tells_nothing() -> None:
    assert tokens_in({}) is None


@moderate
@given(json_values)
def test_whatever_stands_there_is_read(value: Any) -> None:
    tokens = tokens_in({"usage": value})
    assert tokens is None or all(0 <= count <= MOST for count in tokens)


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [
        (Tokens(1_000_000, 0, 0, 0), 1_250_000_000),
        (Tokens(1_000_000, 1_000_000, 0, 0), 125_000_000),
        (Tokens(0, 0, 1_000_000, 900_000), 10_000_000_000),
        (Tokens(1, 0, 0, 0), 1250),
        (Tokens(1, 5, 0, 0), 625),
        (Tokens(0, 0, 0, 0), 0),
    ],
)
def test_tokens_cost_what_their_price_says(tokens: Tokens, cost: int) -> None:
    assert Price(1250, 125, 10_000).of(tokens) == cost
