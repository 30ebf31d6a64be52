"""Each target on bytes that hypothesis draws, and on what was found before; the long runs are `make fuzz`."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.found import FOUND
from tests.fuzz.targets import NAMES, target

EXAMPLES = 150
SLOW = {"times": 15}
"""The targets that take longer, and how often each is tried."""

# Long inputs have to be drawn as one: hypothesis by itself seldom makes any.
inputs = st.binary(max_size=48) | st.integers(0, 2**32).map(lambda seed: random.Random(seed).randbytes(seed % 600))


@pytest.mark.parametrize("name", NAMES)
def test_the_target_holds_for_what_is_drawn(name: str) -> None:
    fuzz = target(name)

    @settings(
        deadline=None,
        database=None,
        max_examples=SLOW.get(name, EXAMPLES),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(inputs)
    def holds(data: bytes) -> None:
        fuzz(data)

    holds()


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_the_target_holds_for_what_was_found(name: str, data: bytes) -> None:
    target(name)(data)
