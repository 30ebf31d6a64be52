"""From an upstream's events to ours: what is logged, with which number, and how the run ends."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.intake import MOST_EARLY, MOST_EARLY_BYTES, Ending, Intake, ending_of
from server.protocol.lifecycle import OPENING, TERMINAL_EVENTS, Status, terminal_event
from server.protocol.snapshot import Identity
from server.protocol.sse import ServerEvent, frame_data, parse_block
from tests.support.generated import json_objects, json_values, moderate

WHO = Identity("litellm_poll_1", 1, {})
REASON = {"code": "insufficient_quota", "message": "You exceeded your quota."}
ERROR = {"type": "error", "param": None, **REASON}
CUT = Ending(
    Status.FAILED,
    error={"code": "server_error", "message": "The provider ended the stream before the response was complete."},
)


def sent(payload: Any, name: str = "") -> ServerEvent:
    data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return ServerEvent(name, data, b"")


def opening(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "sequence_number": 9, "response": {"id": "resp_1", "status": "in_progress", **fields}}


def delta(text: str, number: int | None = None) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text, "sequence_number": number}


def terminal(status: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"id": "resp_1", "status": status, **fields}}


def taken(payloads: list[Any], first: int = 3) -> tuple[Intake, list[dict[str, Any]]]:
    """The intake after these events, and what it logged."""
    intake = Intake(WHO, first)
    frames = [frame for payload in payloads for frame in intake.take(sent(payload))]
    return intake, [orjson.loads(frame_data(frame)) for frame in frames]


def test_the_upstreams_own_opening_is_never_logged_but_kept() -> None:
    intake, logged = taken([opening(kind, model=f"m{n}") for n, kind in enumerate(OPENING)])
    assert logged == []
    assert intake.number == 3
    assert intake.base == {"id": "resp_1", "status": "in_progress", "model": "m2"}
    assert intake.ending is None


def test_an_opening_without_a_response_does_not_forget_the_one_before() -> None:
    intake, logged = taken([opening("response.created"), {"type": "response.in_progress"}])
    assert logged == []
    assert intake.base is not None


def test_numbers_have_no_gap_whatever_the_upstream_counts() -> None:
    payloads = [opening("response.created"), delta("a", 4), delta("b", 90), delta("c"), {"type": "response.unheard_of"}]
    intake, logged = taken([*payloads, terminal("completed")])
    assert [event["sequence_number"] for event in logged] == [3, 4, 5, 6]
    assert intake.number == 7


def test_events_that_nobody_knows_are_logged() -> None:
    event = {"type": "response.unheard_of", "deep": [{"sequence_number": 1}], "obfuscation": "x"}
    _, logged = taken([delta("a"), event])
    assert logged[1:] == [{**event, "sequence_number": 4}]


def test_the_name_of_the_event_stands_in_for_its_type() -> None:
    (frame,) = Intake(WHO, 3).take(sent({"delta": "a"}, "response.output_text.delta"))
    parsed = parse_block(frame)
    assert parsed is not None
    assert parsed.name == "response.output_text.delta"


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete"])
def test_a_terminal_event_is_not_logged_but_ends_it(status: str) -> None:
    intake, logged = taken([delta("a"), terminal(status, output=[])])
    assert len(logged) == 1
    assert intake.end() == Ending(Status(status), {"id": "resp_1", "status": status, "output": []})
    assert intake.ending == intake.end()


def test_nothing_after_the_terminal_event_counts() -> None:
    intake, logged = taken([terminal("completed"), delta("late"), ERROR, terminal("failed"), b"garbage", b"[DONE]"])
    assert logged == []
    assert intake.end().status is Status.COMPLETED


def test_a_response_cancelled_by_the_provider_is_cancelled() -> None:
    assert taken([terminal("cancelled")])[0].end().status is Status.CANCELLED
    failed = {"type": "response.failed", "response": {"id": "resp_1", "status": "cancelled"}}
    assert taken([failed])[0].end() == Ending(Status.CANCELLED, failed["response"])  # type: ignore[arg-type]


def test_a_clean_end_without_a_terminal_event_is_a_failure() -> None:
    assert taken([])[0].end() == CUT
    assert taken([opening("response.created"), delta("a")])[0].end() == CUT
    assert taken([opening("response.created"), delta("a"), b"[DONE]"])[0].end() == CUT


def test_done_is_no_event() -> None:
    intake, logged = taken([delta("a"), b"[DONE]", delta("b")])
    assert [event["delta"] for event in logged] == ["a", "b"]
    assert intake.ending is None


def test_an_error_is_held_back_for_the_providers_own_end() -> None:
    intake, logged = taken([delta("a"), ERROR])
    assert len(logged) == 1
    assert intake.ending is None
    assert intake.take(sent(terminal("failed"))) == ()
    assert intake.end() == Ending(Status.FAILED, {"id": "resp_1", "status": "failed"}, REASON)


def test_the_error_in_the_providers_own_end_is_the_better_one() -> None:
    own = {"code": "invalid_image", "message": "That is no image."}
    intake, _ = taken([{"type": "error"}, terminal("failed", error=own)])
    assert intake.end().error is None
    assert intake.end().upstream == {"id": "resp_1", "status": "failed", "error": own}


def test_an_error_alone_is_the_end() -> None:
    assert taken([ERROR])[0].end() == Ending(Status.FAILED, error=REASON)
    assert taken([{"type": "error", "error": ERROR}])[0].end() == Ending(Status.FAILED, error=REASON)
    assert taken([{"error": ERROR}])[0].end() == Ending(Status.FAILED, error=REASON)
    assert taken([{"type": "error", "error": "text"}])[0].end() == Ending(Status.FAILED, error={"message": "text"})


def test_an_error_is_known_by_its_name_too() -> None:
    intake = Intake(WHO, 3)
    assert intake.take(sent({"type": "invalid_request_error", "message": "no"}, "error")) == ()
    assert intake.end() == Ending(Status.FAILED, error={"message": "no"})


def test_an_event_of_another_type_may_hold_an_error_and_ends_nothing() -> None:
    failed_tool = {"type": "response.mcp_call.failed", "output_index": 0, "error": {"message": "no such repository"}}
    intake, logged = taken([failed_tool, delta("a"), terminal("completed")])
    assert logged[0] == {**failed_tool, "sequence_number": 3}
    assert intake.end().status is Status.COMPLETED


@pytest.mark.parametrize("kind", ["keepalive", "ping", "response.keep_alive", "heartbeat", "keep-alive"])
def test_what_only_keeps_the_connection_alive_is_neither_logged_nor_output(kind: str) -> None:
    alive = {"type": kind, "sequence_number": 0}
    intake, logged = taken([alive, opening("response.created"), alive, ERROR, alive, terminal("failed")])
    assert logged == []
    assert not intake.begun
    assert intake.end() == Ending(Status.FAILED, {"id": "resp_1", "status": "failed"}, REASON)
    intake, logged = taken([delta("a"), alive, delta("b")])
    assert [event["sequence_number"] for event in logged] == [3, 4]


OUTPUT = [
    {"type": "response.output_item.added", "item": {"type": "message"}},
    {"type": "response.content_part.added", "part": {}},
    {"type": "response.novelty.delta", "delta": "a"},
    {"type": "response.web_search_call.in_progress", "output_index": 0},
]


@pytest.mark.parametrize("output", OUTPUT)
def test_what_says_nothing_of_output_is_held_back_until_output_begins(output: dict[str, Any]) -> None:
    unknown = {"type": "response.rate_limits", "limits": [1]}
    intake, logged = taken([opening("response.created"), unknown])
    assert (logged, intake.begun, intake.holds_events) == ([], False, True)
    intake, logged = taken([opening("response.created"), unknown, output, unknown])
    assert [event["type"] for event in logged] == [unknown["type"], output["type"], unknown["type"]]
    assert [event["sequence_number"] for event in logged] == [3, 4, 5]
    assert (intake.begun, intake.holds_events) == (True, False)


def test_what_was_held_back_is_logged_before_an_end_that_is_no_failure() -> None:
    unknown = {"type": "response.rate_limits"}
    assert len(taken([unknown, terminal("completed")])[1]) == 1
    assert len(taken([unknown, terminal("incomplete")])[1]) == 1
    assert taken([unknown, terminal("failed")])[1] == []


def test_no_more_than_a_bounded_part_is_held_back() -> None:
    many, long = {"type": "response.unheard_of"}, {"type": "response.unheard_of", "text": "x" * (MOST_EARLY_BYTES + 1)}
    assert len(taken([many] * MOST_EARLY)[1]) == 0
    assert len(taken([many] * (MOST_EARLY + 1))[1]) == MOST_EARLY + 1
    assert len(taken([long])[1]) == 1


def test_a_response_id_in_an_event_is_the_clients_own() -> None:
    _, logged = taken([{"type": "response.novelty.delta", "delta": "a", "response_id": "resp_raw"}])
    assert logged[0]["response_id"] == WHO.id


@pytest.mark.parametrize(
    "following", [delta("a"), opening("response.in_progress"), ERROR, {"type": "response.unheard_of"}]
)
def test_an_error_followed_by_anything_else_is_the_end_at_once(following: dict[str, Any]) -> None:
    intake, logged = taken([ERROR, following, terminal("completed")])
    assert logged == []
    assert intake.ending == Ending(Status.FAILED, error=REASON)


def test_an_error_followed_by_a_completed_response_is_overruled() -> None:
    intake, _ = taken([ERROR, terminal("completed")])
    assert intake.end() == Ending(Status.COMPLETED, {"id": "resp_1", "status": "completed"})


@pytest.mark.parametrize("raw", [b"garbage", b"[]", b'{"a":1}', b"\xff", b"[" * 5000])
def test_garbage_ends_it_as_failed(raw: bytes) -> None:
    intake, logged = taken([delta("a"), raw, delta("b")])
    assert [event["delta"] for event in logged] == ["a"]
    ending = intake.end()
    assert ending.status is Status.FAILED
    assert ending.error is not None
    assert ending.error["code"] == "server_error"


types = st.sampled_from([*OPENING, *TERMINAL_EVENTS, "error", "response.output_text.delta"]) | json_values


@moderate
@given(st.lists(st.tuples(types, json_objects), max_size=8), st.integers(0, 5))
def test_arbitrary_events_never_raise_and_are_numbered_without_gap(
    events: list[tuple[Any, dict[str, Any]]], first: int
) -> None:
    intake, logged = taken([{**payload, "type": kind} for kind, payload in events], first)
    assert [event["sequence_number"] for event in logged] == list(range(first, intake.number))
    assert intake.end().status.terminal


@moderate
@given(st.lists(st.binary() | json_values.map(orjson.dumps), max_size=5), st.text(max_size=5))
def test_arbitrary_data_never_raises(stream: list[bytes], name: str) -> None:
    intake = Intake(WHO, 0)
    for data in stream:
        intake.take(sent(data, name))
    assert intake.end().status.terminal


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
def test_a_whole_response_tells_how_it_ended(status: str) -> None:
    whole = {"status": status, "output": []}
    assert ending_of(orjson.dumps(whole)) == Ending(Status(status), whole)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"not JSON", b"null", b"[]", b'"completed"', b"{}", b'{"status":"queued"}', b'{"status":["completed"]}'),
        b'{"status":"completed","output":' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
def test_an_answer_that_is_no_finished_response_is_a_failure(answer: bytes) -> None:
    assert ending_of(answer).status is Status.FAILED


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"error":{"message":"No model is loaded."}}', "No model is loaded."),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b"<title>Sign in</title>", "neither a stream nor a finished response: Sign in"),
        (b"", "neither a stream nor a finished response."),
    ],
)
def test_an_answer_that_is_no_response_tells_its_reason(answer: bytes, message: str) -> None:
    error = ending_of(answer).error
    assert error is not None
    assert error["message"].endswith(message)


def test_an_unknown_event_that_carries_a_response_is_logged_under_our_id() -> None:
    came = {"type": "response.novelty", "response": {"id": "resp_raw", "model": "m"}, "extra": 1}
    event = taken([delta("a"), came])[1][1]
    assert (event["type"], event["sequence_number"], event["extra"]) == ("response.novelty", 4, 1)
    assert (event["response"]["id"], event["response"]["model"], event["response"]["tools"]) == (WHO.id, "m", [])


def test_a_resumed_stream_may_repeat_what_was_taken_before() -> None:
    intake = Intake(WHO, 5, 7)
    delta = "response.output_text.delta"
    taken = [intake.take(sent({"type": delta, "sequence_number": n, "delta": str(n)})) for n in range(5, 10)]
    assert [[orjson.loads(frame_data(frame))["delta"] for frame in frames] for frames in taken] == [
        *([], [], []),
        ["8"],
        ["9"],
    ]
    assert intake.upstream_last == 9


def test_every_status_ends_with_an_event_of_the_standard() -> None:
    assert [terminal_event(status) for status in Status if status.terminal] == [
        "response.completed",
        "response.failed",
        "response.incomplete",
        "response.failed",
    ]
    assert {status for status in Status if not status.terminal} == {Status.QUEUED, Status.IN_PROGRESS}
