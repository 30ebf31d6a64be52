"""Which model comes after one that has failed: LiteLLM's rule, in tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidType, InvalidValue
from server.protocol.causes import Cause, cause_in
from server.protocol.fallback_lists import MOST_OF_A_REQUEST, Wished, table_in, targets_in, wished_in
from server.protocol.fallbacks import Fallbacks, Walk

WINDOW, POLICY, OTHER = Cause.WINDOW, Cause.POLICY, Cause.OTHER


def alike(model: str) -> str | None:
    return model.removeprefix("openai/") if "/" in model else f"openai/{model}"


@pytest.mark.parametrize(
    ("lists", "model", "cause", "expected"),
    [
        ({"general": {"a": ("b", "c")}}, "a", OTHER, ["b", "c"]),
        ({"general": {"a": ("b",)}}, "x", OTHER, []),
        ({"general": {"a": ("b",), "*": ("z",)}}, "a", OTHER, ["b"]),
        ({"general": {"a": ("b",), "*": ("z",)}}, "x", OTHER, ["z"]),
        ({"general": {"a": (), "*": ("z",)}}, "a", OTHER, []),
        ({"general": {"gpt": ("b",), "*": ("z",)}}, "openai/gpt", OTHER, ["b"]),
        ({"general": {"openai/gpt": ("b",), "*": ("z",)}}, "gpt", OTHER, ["b"]),
        ({"general": {"gpt": ("b",), "openai/gpt": ("c",)}}, "gpt", OTHER, ["b"]),
        # A special list is the only one for its cause, once there is any, and it has neither a star nor other names.
        ({"general": {"a": ("b",)}}, "a", WINDOW, ["b"]),
        ({"general": {"a": ("b",)}}, "a", POLICY, ["b"]),
        ({"general": {"a": ("b",)}, "window": {"a": ("long",)}}, "a", WINDOW, ["long"]),
        ({"general": {"a": ("b",)}, "window": {"x": ("long",)}}, "a", WINDOW, []),
        ({"general": {"a": ("b",)}, "window": {"*": ("long",)}}, "a", WINDOW, []),
        ({"general": {"a": ("b",)}, "window": {"x": ("long",)}}, "a", OTHER, ["b"]),
        ({"general": {"a": ("b",)}, "window": {"x": ("long",)}}, "a", POLICY, ["b"]),
        ({"general": {"a": ("b",)}, "policy": {"a": ("mild",)}}, "a", POLICY, ["mild"]),
        ({"general": {"a": ("b",)}, "window": {}, "own": ("d",)}, "a", WINDOW, ["d"]),
        ({"general": {"a": ("a", "b", "b")}}, "a", OTHER, ["b"]),
        ({"general": {"a": ("b",)}, "deepest": 0}, "a", OTHER, []),
    ],
)
def test_which_list_counts(lists: Any, model: str, cause: Cause, expected: list[str]) -> None:
    walk = Walk(Fallbacks(**lists, alike=alike), model)
    assert walk.ahead(cause) == expected
    assert [name for name in iter(lambda: walk.after(cause), None) if name in expected] == expected


def way(fallbacks: Fallbacks, model: str = "a", may_use: Callable[[str], bool] = bool) -> list[tuple[str, int]]:
    """The models that are asked if all of them fail, and the number of steps that are told of each."""
    walk = Walk(fallbacks, model, may_use)
    found = [(walk.model, walk.depth)]
    while walk.after(OTHER) is not None:
        found.append((walk.model, walk.depth))
    return found


@pytest.mark.parametrize(
    ("general", "deepest", "expected"),
    [
        ({}, 5, [("a", 0)]),
        # A list is tried to its end however long it is: only what is nested is limited.
        ({"a": ("b", "c", "d")}, 1, [("a", 0), ("b", 1), ("c", 2), ("d", 3)]),
        ({"a": ("b",), "b": ("c",), "c": ("d",)}, 5, [("a", 0), ("b", 1), ("c", 2), ("d", 3)]),
        ({"a": ("b",), "b": ("c",), "c": ("d",)}, 2, [("a", 0), ("b", 1), ("c", 2)]),
        # A model's own fallbacks come before those beside it, and their depth counts from its place in the list.
        ({"a": ("b", "c"), "b": ("d",), "c": ("e",)}, 5, [("a", 0), ("b", 1), ("d", 2), ("c", 2), ("e", 3)]),
        ({"a": ("b", "c"), "c": ("e",)}, 2, [("a", 0), ("b", 1), ("c", 2)]),
        # Nobody is asked twice.
        ({"a": ("b",), "b": ("a",)}, 5, [("a", 0), ("b", 1)]),
        ({"a": ("b", "c"), "b": ("c",), "c": ("b", "a")}, 9, [("a", 0), ("b", 1), ("c", 2)]),
        ({"*": ("x", "y")}, 5, [("a", 0), ("x", 1), ("y", 2)]),
    ],
)
def test_fallbacks_follow_each_other(general: Any, deepest: int, expected: list[tuple[str, int]]) -> None:
    assert way(Fallbacks(general, deepest=deepest)) == expected


def test_what_may_not_be_used_is_passed_over() -> None:
    fallbacks = Fallbacks({"a": ("b", "c"), "b": ("d",)})
    assert way(fallbacks, may_use=lambda name: name != "b") == [("a", 0), ("c", 1)]
    assert list(Walk(fallbacks, "a", lambda name: name != "c").reachable()) == ["b", "d"]


def test_the_causes_of_later_failures_choose_later_lists() -> None:
    walk = Walk(Fallbacks({"a": ("b",), "b": ("x",)}, window={"b": ("long",)}), "a")
    assert walk.after(OTHER) == "b"
    assert walk.after(WINDOW) == "long"
    assert walk.after(OTHER) is None


tables = st.dictionaries(st.sampled_from("abcd*"), st.lists(st.sampled_from("abcde"), max_size=4).map(tuple))


@given(general=tables, window=st.none() | tables, deepest=st.integers(0, 6), causes=st.lists(st.sampled_from(Cause)))
def test_every_way_ends_and_asks_each_model_once(general: Any, window: Any, deepest: int, causes: list[Cause]) -> None:
    fallbacks = Fallbacks(general, window, deepest=deepest)
    walk = Walk(fallbacks, "a")
    asked = ["a"]
    name: str | None = ""
    for cause in [*causes, *[OTHER] * 6]:
        ahead = walk.ahead(cause)
        name = walk.after(cause)
        assert name == (ahead[0] if ahead else None), "it comes as it was foretold"
        if name is None:
            break
        asked.append(name)
    assert name is None
    assert len(asked) == len(set(asked))
    assert set(asked[1:]) <= set(fallbacks.reachable("a"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"code": "context_length_exceeded", "message": "Too long."}, WINDOW),
        ({"message": "This model's maximum context length is 8192 tokens."}, WINDOW),
        ({"type": "invalid_request_error", "message": "prompt is too long: 250000 tokens > 200000 maximum"}, WINDOW),
        ({"message": "The input token count (2) exceeds the maximum number of tokens allowed (1)."}, WINDOW),
        ({"message": "Current length is 9000 while limit is 8192"}, WINDOW),
        (
            {"code": "string_above_max_length", "message": "string too long. Expected a string with maximum length"},
            OTHER,
        ),
        ({"message": "Invalid 'user': string too long. Expected a string with maximum length 64"}, OTHER),
        ({"type": "invalid_request_error", "code": "content_policy_violation"}, POLICY),
        ({"code": "content_filter", "message": "The response was filtered due to the prompt"}, POLICY),
        ({"message": "Output blocked by content filtering policy"}, POLICY),
        ({"message": "Your request was rejected as a result of our safety system."}, POLICY),
        ({"message": "Invalid prompt: we've limited this for violating our usage policy."}, POLICY),
        ({"code": "rate_limit_exceeded", "message": "Rate limit"}, OTHER),
        ({}, OTHER),
    ],
)
def test_the_cause_is_told_by_the_words_of_the_error(fields: Any, expected: Cause) -> None:
    assert cause_in(fields) is expected


def test_of_two_lists_for_a_model_the_first_counts_and_for_the_star_the_last() -> None:
    entries = [{"a": ["b"]}, {"a": ["c"]}, {"*": ["d"]}, {"*": [{"model": "e", "temperature": 0}]}]
    assert table_in(entries) == {"a": ("b",), "*": ("e",)}


@pytest.mark.parametrize(
    "wrong", ["b", {"a": ["b"]}, ["b"], [{}], [{"a": ["b"], "c": ["d"]}], [{"a": "b"}], [{"a": [1]}], [{"a": [{}]}]]
)
def test_another_thing_is_no_table(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|must be"):
        table_in(wrong)


@pytest.mark.parametrize("wrong", ["b", ["b", 1], [""], [{"modell": "b"}]])
def test_another_thing_is_no_list_of_models(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|must be"):
        targets_in(wrong)


CONFIGURED = Fallbacks({"a": ("b",)}, {"a": ("long",)})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, CONFIGURED),
        ({"fallbacks": None, "disable_fallbacks": False}, CONFIGURED),
        ({"disable_fallbacks": True}, Fallbacks()),
        ({"fallbacks": ["c", {"model": "d"}], "disable_fallbacks": True}, Fallbacks()),
        ({"fallbacks": ["c", "d"]}, Fallbacks({"a": ("b",)}, {"a": ("long",)}, own=("c", "d"))),
        ({"fallbacks": [{"model": "c"}]}, Fallbacks({"a": ("b",)}, {"a": ("long",)}, own=("c",))),
        ({"fallbacks": [{"model": ["c"]}]}, Fallbacks({"model": ("c",)}, {"a": ("long",)})),
        ({"fallbacks": [{"a": ["c"]}]}, Fallbacks({"a": ("c",)}, {"a": ("long",)})),
        ({"fallbacks": []}, Fallbacks({}, {"a": ("long",)})),
        ({"context_window_fallbacks": [{"a": ["c"]}]}, Fallbacks({"a": ("b",)}, {"a": ("c",)})),
        ({"content_policy_fallbacks": [{"a": ["c"]}]}, Fallbacks({"a": ("b",)}, {"a": ("long",)}, {"a": ("c",)})),
    ],
)
def test_the_lists_of_a_request_replace_those_of_the_config(body: Any, expected: Fallbacks) -> None:
    assert wished_in(body).put_over(CONFIGURED) == expected


def test_all_models_that_a_request_names_are_known() -> None:
    body = {"fallbacks": [{"a": ["c", "d"]}], "context_window_fallbacks": [{"x": ["d", "e"]}]}
    assert wished_in(body).models == ["c", "d", "e"]
    assert Wished().models == []


@pytest.mark.parametrize(
    ("body", "error", "param"),
    [
        ({"fallbacks": "b"}, InvalidType, "fallbacks"),
        ({"fallbacks": ["b", 1]}, InvalidValue, "fallbacks"),
        ({"fallbacks": [{"a": "b"}]}, InvalidValue, "fallbacks"),
        ({"fallbacks": [{"model": "b", "temperature": 0}]}, InvalidValue, "fallbacks"),
        ({"fallbacks": [{"a": [{"model": "b", "api_base": "http://x"}]}]}, InvalidValue, "fallbacks"),
        ({"fallbacks": [f"m{number}" for number in range(MOST_OF_A_REQUEST + 1)]}, InvalidValue, "fallbacks"),
        ({"context_window_fallbacks": ["b"]}, InvalidValue, "context_window_fallbacks"),
        ({"content_policy_fallbacks": {}}, InvalidType, "content_policy_fallbacks"),
    ],
)
def test_what_a_request_can_not_say(body: Any, error: type[InvalidType | InvalidValue], param: str) -> None:
    with pytest.raises(error) as raised:
        wished_in(body)
    assert raised.value.param == param
