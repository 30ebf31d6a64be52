"""The rule by which a deployment is chosen: what goes before what, and shares by weight."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.check import describe
from server.config import parse_config
from server.upstream.choice import Candidate, Strategy, choose, described, strategy_named, weights_of
from server.upstream.deployments import Deployment, Deployments
from tests.support.deployments import deployment
from tests.support.generated import moderate

PLAIN = deployment("plain")
RNG = random.Random(7)


def candidate(name: str, *, config: dict[str, Any] | None = None, **state: Any) -> Candidate:
    return Candidate(replace(PLAIN, id=name, **(config or {})), **state)


def chosen(*candidates: Candidate, strategy: Strategy = Strategy.AUTO, draws: int = 100) -> Counter[str]:
    return Counter(choose(candidates, strategy, RNG).id for _ in range(draws))


# What goes before what.


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (candidate("better", tried=1, calls=99, config={"rpm": 1}), candidate("worse", tried=2)),
        (candidate("better", calls=4, config={"rpm": 5}, queue=1.0), candidate("worse", calls=5, config={"rpm": 5})),
        (candidate("better", queue=1.0), candidate("worse", tokens=9, config={"tpm": 9})),
        (candidate("better", config={"order": 2}), candidate("worse", queue=0.0, config={"order": 1})),
        (candidate("better", queue=0.5), candidate("worse", queue=1.0)),
        (candidate("better", in_flight=9, config={"order": 1}), candidate("worse", config={"order": 2, "weight": 9})),
        (candidate("better", in_flight=9, config={"order": 1}), candidate("worse")),
        (candidate("better", in_flight=9, config={"weight": 1}), candidate("worse")),
        (candidate("better", in_flight=1), candidate("worse", in_flight=2)),
    ],
)
def test_the_better_one_is_always_chosen(better: Candidate, worse: Candidate) -> None:
    assert chosen(better, worse).keys() == chosen(worse, better).keys() == {"better"}


def test_a_tie_is_random() -> None:
    assert chosen(candidate("a"), candidate("b")).keys() == {"a", "b"}


def test_a_limit_of_the_minute_never_refuses() -> None:
    over = [candidate(name, calls=9, config={"rpm": 1}, in_flight=number) for number, name in enumerate("ab")]
    assert chosen(*over, strategy=Strategy.LEAST_BUSY).keys() == {"a"}


# Weights.


@pytest.mark.parametrize(
    ("configs", "weights"),
    [
        ([{}, {}], []),
        ([{"weight": 0}, {}], []),
        ([{"weight": 2}, {"weight": 1}], [1, 0.5]),
        ([{"weight": 2}, {"rpm": 1000}], [1, 0]),
        ([{"rpm": 10, "tpm": 1}, {"rpm": 20, "tpm": 9}], [0.5, 1]),
        ([{"tpm": 1000}, {}], [1, 0]),
    ],
)
def test_weights_are_taken_as_litellm_takes_them(configs: list[dict[str, Any]], weights: list[float]) -> None:
    assert weights_of([replace(PLAIN, **config) for config in configs]) == weights


def test_shares_are_as_the_weights_are() -> None:
    drawn = chosen(candidate("a", config={"weight": 9}, in_flight=50), candidate("b", config={"weight": 1}), draws=2000)
    assert 1700 <= drawn["a"] <= 1900


def test_a_draw_without_weights_heeds_nothing_else() -> None:
    drawn = chosen(candidate("a", in_flight=50), candidate("b"), strategy=Strategy.DRAW, draws=2000)
    assert 850 <= drawn["a"] <= 1150


def test_who_has_no_weight_is_chosen_when_the_others_were_tried() -> None:
    weighted, without = candidate("weighted", config={"weight": 1}, tried=1), candidate("without")
    assert chosen(weighted, without).keys() == {"without"}


# Strategies.


def test_the_least_used_is_that_with_the_fewest_calls_in_the_minute() -> None:
    busy, used = candidate("busy", in_flight=3, calls=3), candidate("used", calls=4)
    assert chosen(busy, used, strategy=Strategy.LEAST_USED).keys() == {"busy"}


def test_the_cheapest_goes_before_others_and_one_without_a_price_comes_last() -> None:
    cheap, dear, unknown = candidate("cheap", config={"cost": 1}), candidate("dear", config={"cost": 2}), candidate("x")
    assert chosen(cheap, dear, unknown, strategy=Strategy.CHEAPEST).keys() == {"cheap"}
    assert chosen(dear, unknown, strategy=Strategy.CHEAPEST).keys() == {"dear"}


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        (None, Strategy.AUTO),
        ("simple-shuffle", Strategy.DRAW),
        ("least-busy", Strategy.LEAST_BUSY),
        ("latency-based-routing", Strategy.LEAST_BUSY),
        ("usage-based-routing", Strategy.LEAST_USED),
        ("usage-based-routing-v2", Strategy.LEAST_USED),
        ("cost-based-routing", Strategy.CHEAPEST),
        ("auto", Strategy.LEAST_BUSY),
        ("lar1", Strategy.LEAST_BUSY),
    ],
)
def test_strategies_have_litellms_names(name: str | None, strategy: Strategy) -> None:
    assert strategy_named(name) is strategy


def test_check_config_tells_a_strategy_that_is_another_one_here() -> None:
    def told(**settings: Any) -> str:
        return describe(parse_config({"router_settings": settings}, environ={}))

    assert "choice of a deployment" not in told()
    assert "choice of a deployment: least-busy\n" in told(routing_strategy="least-busy")
    assert "choice of a deployment: latency-based-routing: by the least in flight, " in told(
        routing_strategy="latency-based-routing"
    )
    assert described("lar1") == "least-busy, because lar1 is unknown"


# Always.

states = st.builds(
    Candidate,
    st.builds(
        replace,
        st.just(PLAIN),
        id=st.uuids().map(str),
        weight=st.none() | st.floats(0, 1e9),
        rpm=st.none() | st.floats(0, 100),
        tpm=st.none() | st.floats(0, 100),
        order=st.none() | st.integers(-3, 3),
        cost=st.none() | st.floats(0, 1),
    ),
    tried=st.integers(0, 3),
    in_flight=st.integers(0, 9),
    calls=st.integers(0, 100),
    tokens=st.integers(0, 100),
    queue=st.none() | st.floats(0, 9),
)


@moderate
@given(st.lists(states, min_size=1, max_size=6), st.sampled_from(Strategy), st.integers())
def test_one_is_chosen_always_and_none_that_another_one_outdoes(
    candidates: list[Candidate], strategy: Strategy, seed: int
) -> None:
    found = choose(candidates, strategy, random.Random(seed))
    (winner,) = (candidate for candidate in candidates if candidate.deployment is found)
    for other in candidates:
        assert winner.tried <= other.tried
        if winner.tried == other.tried:
            assert winner.over_limit <= other.over_limit
            if winner.over_limit == other.over_limit:
                assert (winner.queue is not None) <= (other.queue is not None)


@moderate
@given(st.lists(st.floats(0, 1e300), max_size=5))
def test_weights_of_any_size_can_be_drawn_by(given_weights: list[float]) -> None:
    weights = weights_of([replace(PLAIN, weight=weight) for weight in given_weights])
    assert bool(weights) == any(weight > 0 for weight in given_weights)
    assert all(0 <= weight <= 1 for weight in weights)
    assert not weights or max(weights) == 1


# From the config.


def test_shares_and_limits_are_read_where_litellm_reads_them() -> None:
    def made(params: dict[str, Any], info: dict[str, Any], **entry: Any) -> Deployment:
        whole = {"model_name": "a", "litellm_params": {"model": "openai/m", **params}, "model_info": info, **entry}
        return Deployments(parse_config({"model_list": [whole]}, environ={}), environ={}).all[0]

    assert (made({"weight": 2, "order": 1}, {}).weight, made({"order": 1}, {}).order) == (2, 1)
    assert made({"rpm": 5}, {"rpm": 7}, rpm=6).rpm == 5
    assert made({}, {"rpm": 7}, rpm=6).rpm == 6
    assert made({}, {"tpm": "7"}).tpm == 7
    assert made({}, {"tpm": "many"}).tpm is None
    assert made({"input_cost_per_token": 0.5, "output_cost_per_token": "1.5"}, {}).cost == 2
    assert made({}, {}).cost is None


def test_deployments_that_get_nothing_are_told() -> None:
    entries = [
        {"model_name": "a", "litellm_params": {"model": "openai/m", "api_base": "http://h", "weight": weight}}
        for weight in (1, None, None)
    ]
    text = describe(parse_config({"model_list": entries}, environ={}))
    assert "warning: a: no request goes to 2 of its deployments while one with a weight (or rpm, tpm) is fit\n" in text
