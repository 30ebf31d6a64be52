"""The Response object: each row of the contract's table, for any upstream and every status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from server.protocol.lifecycle import TERMINAL_EVENTS, Status
from server.protocol.snapshot import DEFAULTS, Identity, fill_foreign, response_object
from tests.support.generated import json_objects, json_values, moderate

Json = dict[str, Any]

POLLING_ID = "litellm_poll_488c5546-7b0c-412d-955e-5792202d2201"
CREATED_AT, ENDED_AT = 1769579421, 1769579500

# The table of the contract, section 2, on its own: what a client gets where neither side said anything.
PLAIN: Json = {
    "id": POLLING_ID,
    "object": "response",
    "status": "queued",
    "background": True,
    "created_at": CREATED_AT,
    "previous_response_id": None,
    "completed_at": None,
    "output": [],
    "error": None,
    "incomplete_details": None,
    "usage": None,
    "model": "gpt-5.2",
    "metadata": {},
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "user": None,
    "parallel_tool_calls": True,
    "store": True,
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "service_tier": "auto",
    "truncation": "disabled",
    "tool_choice": "auto",
    "tools": [],
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
}
OURS = ("id", "object", "status", "background", "created_at", "previous_response_id")
NEVER_ECHOED = (*OURS, "completed_at", "error", "incomplete_details", "output", "usage")


def made(
    status: Status = Status.QUEUED, upstream: Json | None = None, request: Json | None = None, **options: Any
) -> Json:
    """The object as a client gets it."""
    who = Identity(POLLING_ID, CREATED_AT, {"model": "gpt-5.2", "input": "hi", "background": True, **(request or {})})
    parsed: Json = orjson.loads(orjson.dumps(response_object(who, status, upstream, **options)))
    return parsed


def test_without_any_word_of_either_side_it_is_the_table() -> None:
    assert made() == PLAIN


@pytest.mark.parametrize("upstream", [None, {}, dict.fromkeys(PLAIN), dict.fromkeys(DEFAULTS)])
@pytest.mark.parametrize("request_body", [{}, dict.fromkeys(set(PLAIN) - {"model"})])
def test_a_null_means_nothing_was_said(upstream: Json | None, request_body: Json) -> None:
    assert made(Status.IN_PROGRESS, upstream, request_body) == {**PLAIN, "status": "in_progress"}


@moderate
@given(st.sampled_from(list(Status)), json_objects, st.dictionaries(st.sampled_from(sorted(PLAIN)), json_values))
def test_every_key_is_there_whatever_the_upstream_sends(status: Status, unknown: Json, known: Json) -> None:
    found = made(status, {**unknown, **known}, ended_at=ENDED_AT)
    assert set(PLAIN) <= set(found)
    assert {name: found[name] for name in OURS} == {**{name: PLAIN[name] for name in OURS}, "status": status}
    assert isinstance(found["tools"], list)
    assert all(found[name] is not None for name, value in PLAIN.items() if value is not None)


def test_ours_always_win() -> None:
    upstream = {
        "id": "resp_1",
        "object": "other",
        "status": "completed",
        "background": False,
        "created_at": 1,
        "previous_response_id": "resp_0",
    }
    found = made(Status.IN_PROGRESS, upstream, {"previous_response_id": "litellm_poll_x", "id": "mine"})
    assert found == {**PLAIN, "status": "in_progress", "previous_response_id": "litellm_poll_x"}


@pytest.mark.parametrize("key", sorted(set(PLAIN) - set(NEVER_ECHOED) - {"tools", "text", "reasoning", "metadata"}))
def test_the_upstreams_word_goes_before_the_requests_and_that_before_the_default(key: str) -> None:
    assert made(Status.IN_PROGRESS, {key: "theirs"}, {key: "asked"})[key] == "theirs"
    assert made(Status.IN_PROGRESS, {key: None}, {key: "asked"})[key] == "asked"
    assert made(Status.IN_PROGRESS, {}, {key: "asked"})[key] == "asked"


@pytest.mark.parametrize("falsy", [False, 0, 0.0, "", []])
def test_a_falsy_word_is_a_word(falsy: Any) -> None:
    assert made(Status.IN_PROGRESS, {"parallel_tool_calls": falsy})["parallel_tool_calls"] == falsy
    assert made(Status.IN_PROGRESS, {}, {"temperature": falsy})["temperature"] == falsy


def test_a_request_cannot_set_what_only_a_run_can() -> None:
    asked = {name: {"a": 1} for name in NEVER_ECHOED if name != "previous_response_id"}
    assert made(request=asked) == PLAIN


def test_unknown_keys_pass_through() -> None:
    found = made(Status.IN_PROGRESS, {"billing": {"payer": "x"}, "moderation": None}, {"unheard_of": 1})
    assert found == {**PLAIN, "status": "in_progress", "billing": {"payer": "x"}, "moderation": None}


def test_reasoning_and_text_are_overlaid() -> None:
    found = made(request={"reasoning": {"effort": "high"}, "text": {"verbosity": "low"}})
    assert found["reasoning"] == {"effort": "high", "summary": None}
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    found = made(Status.IN_PROGRESS, {"reasoning": {"summary": "auto", "new": 1}, "text": {"format": None}})
    assert found["reasoning"] == {"effort": None, "summary": "auto", "new": 1}
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "medium"}


def test_function_tools_get_their_missing_keys() -> None:
    function, search = {"type": "function", "name": "f"}, {"type": "web_search"}
    whole = {**function, "description": "d", "parameters": {"type": "object"}, "strict": False}
    expected = [{**function, "description": None, "parameters": None, "strict": True}, search, whole]
    assert made(request={"tools": [function, search, whole]})["tools"] == expected
    assert made(Status.IN_PROGRESS, {"tools": [function, search, whole]})["tools"] == expected


@pytest.mark.parametrize("tools", ["none", {}, 5])
def test_tools_are_a_list_whatever_the_upstream_sends(tools: Any) -> None:
    assert made(Status.IN_PROGRESS, {"tools": tools})["tools"] == []


def test_a_json_schema_gets_its_missing_keys() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    expected = {"format": {**schema, "description": None, "strict": False}, "verbosity": "medium"}
    assert made(request={"text": {"format": schema}})["text"] == expected
    strict = {**schema, "description": "d", "strict": True}
    assert made(request={"text": {"format": strict}})["text"]["format"] == strict
    assert made(request={"text": {"format": {"type": "json_object"}}})["text"]["format"] == {"type": "json_object"}


def test_usage_gets_both_details() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    assert made(Status.COMPLETED, {"usage": usage})["usage"] == {
        **usage,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    whole = {**usage, "input_tokens_details": {"cached_tokens": 1}, "output_tokens_details": {"reasoning_tokens": 2}}
    assert made(Status.COMPLETED, {"usage": whole})["usage"] == whole
    assert made(Status.COMPLETED, {"usage": "much"})["usage"] is None


def test_usage_gets_counts_that_are_missing_or_no_numbers() -> None:
    def counts(**usage: Any) -> list[Any]:
        found = made(Status.COMPLETED, {"usage": usage})["usage"]
        return [found["input_tokens"], found["output_tokens"], found["total_tokens"]]

    assert counts(input_tokens=100) == [100, 0, 100]
    assert counts(input_tokens=1, output_tokens="many", total_tokens=None) == [1, 0, 1]
    assert counts(input_tokens=1, output_tokens=2, total_tokens=7) == [1, 2, 7], "what the provider counts holds"


def test_the_given_output_overrules_the_upstreams() -> None:
    assert made(Status.COMPLETED, {"output": [1]})["output"] == [1]
    assert made(Status.COMPLETED, {"output": [1]}, output=[2])["output"] == [2]
    assert made(Status.COMPLETED, {"output": [1]}, output=[])["output"] == []


# The table of statuses: completed_at, error, output, incomplete_details.

FULL: Json = {
    "completed_at": 1769579490,
    "error": {"code": "rate_limit_exceeded", "message": "Slow down."},
    "incomplete_details": {"reason": "max_output_tokens"},
    "output": [{"type": "message"}],
}
EMPTY: Json = {"completed_at": None, "error": None, "incomplete_details": None}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.QUEUED, EMPTY),
        (Status.IN_PROGRESS, EMPTY),
        (Status.COMPLETED, {**EMPTY, "completed_at": 1769579490}),
        (Status.FAILED, {**EMPTY, "error": FULL["error"]}),
        (Status.INCOMPLETE, {**EMPTY, "incomplete_details": FULL["incomplete_details"]}),
        (Status.CANCELLED, EMPTY),
    ],
)
def test_each_status_has_its_own_fields_and_no_others(status: Status, expected: Json) -> None:
    found = made(status, FULL, ended_at=ENDED_AT)
    assert {name: found[name] for name in expected} == expected
    assert found["output"] == FULL["output"]


@pytest.mark.parametrize("upstream", [None, {}, {"completed_at": None}])
def test_where_the_upstream_does_not_tell_when_it_ended_we_do(upstream: Json | None) -> None:
    assert made(Status.COMPLETED, upstream, ended_at=ENDED_AT)["completed_at"] == ENDED_AT


@pytest.mark.parametrize("error", [None, {}, "odd", {"code": None, "message": ""}])
def test_a_failure_always_has_code_and_message(error: Any) -> None:
    found = made(Status.FAILED, {"error": error})["error"]
    assert found["code"] == "server_error"
    assert "provider" in found["message"]


def test_a_given_error_overrules_the_upstreams() -> None:
    given_error = {"type": "error", "code": "timeout", "message": "Too long.", "sequence_number": 3}
    found = made(Status.FAILED, FULL, error=given_error)["error"]
    assert found == {"code": "timeout", "message": "Too long."}


def test_a_code_that_is_no_string_becomes_one() -> None:
    assert made(Status.FAILED, error={"code": 429, "message": ["m"]})["error"] == {"code": "429", "message": "['m']"}


# The official SDK reads it.

USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
REQUESTED: Json = {
    "instructions": "Be brief.",
    "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
    "reasoning": {"effort": "low"},
    "metadata": {"a": "b"},
    "previous_response_id": "resp_0",
}


@pytest.mark.parametrize("request_body", [{}, REQUESTED])
@pytest.mark.parametrize("upstream", [None, dict.fromkeys(PLAIN), {"usage": USAGE, "unheard_of": 1}])
@pytest.mark.parametrize("status", list(Status))
def test_the_official_type_accepts_every_status(status: Status, upstream: Json | None, request_body: Json) -> None:
    found = made(status, upstream, request_body, ended_at=ENDED_AT)
    read = Response.model_validate(found)
    assert read.status == status
    assert [tool.type for tool in read.tools] == [tool["type"] for tool in found["tools"]]
    assert read.output_text == ""


def test_the_official_type_accepts_what_is_made_of_every_recording(recordings: Path) -> None:
    for path in sorted(recordings.glob("*.jsonl")):
        events = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
        (last,) = (event for event in events if event["type"] in TERMINAL_EVENTS)
        status = TERMINAL_EVENTS[last["type"]]
        if status is Status.COMPLETED:
            # Their usage is older than this SDK's type, which asks for a count that did not exist yet.
            found = {**made(status, last["response"], ended_at=ENDED_AT), "usage": None}
            assert len(Response.model_validate(found).output) == len(last["response"]["output"]), path.name


# A weak provider's own object, filled up on demand.


def test_a_providers_own_object_keeps_its_words_and_gets_the_missing_keys() -> None:
    theirs: Json = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "error": None}
    fill_foreign(theirs, {"model": "public", "previous_response_id": "resp_0", "background": True})
    expected = {"id": "resp_1", "model": "m", "status": "completed", "previous_response_id": "resp_0"}
    assert {name: theirs[name] for name in expected} == expected
    assert set(PLAIN) - set(theirs) == {"created_at"}
    assert theirs["background"] is True


def test_what_a_providers_own_object_says_is_not_overruled() -> None:
    theirs: Json = {"background": False, "previous_response_id": "resp_1", "completed_at": 5, "tools": [{"type": "x"}]}
    fill_foreign(theirs, {"background": True, "previous_response_id": "resp_0", "tools": []})
    assert theirs["background"] is False
    assert (theirs["previous_response_id"], theirs["completed_at"]) == ("resp_1", 5)
    assert theirs["tools"] == [{"type": "x"}]
