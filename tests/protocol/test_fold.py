"""The fold: what has arrived so far, of every kind of content, in any order, from any upstream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.fold import _FOLDS, Fold, Text, dumps
from server.protocol.lifecycle import TERMINAL_EVENTS
from tests.support.generated import json_objects, json_values, moderate

Json = dict[str, Any]


def folded(*events: Json) -> list[Any]:
    """The output after these events, as a client gets it."""
    fold = Fold()
    for event in events:
        # As from the log: each event is read anew, and the fold may grow what lies in it.
        fold.apply(orjson.loads(orjson.dumps(event)))
    return plain(fold)


def plain(fold: Fold) -> list[Any]:
    output: list[Any] = orjson.loads(dumps(fold.output))
    return output


def added(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def part(item_part: Json, index: int = 0, stage: str = "added") -> Json:
    return {"type": f"response.content_part.{stage}", "output_index": 0, "content_index": index, "part": item_part}


def at(kind: str, index: int = 0, **fields: Any) -> Json:
    return {"type": f"response.{kind}", "output_index": index, **fields}


MESSAGE = {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
TEXT = {"type": "output_text", "text": "", "annotations": []}


def test_text_grows_in_its_part() -> None:
    (item,) = folded(
        added(MESSAGE),
        part(TEXT),
        at("output_text.delta", content_index=0, delta="Once "),
        at("output_text.delta", content_index=0, delta="upon"),
    )
    assert item == {**MESSAGE, "content": [{**TEXT, "text": "Once upon"}]}


def test_the_end_of_a_text_replaces_its_deltas() -> None:
    (item,) = folded(
        added(MESSAGE),
        part(TEXT),
        at("output_text.delta", content_index=0, delta="Onc"),
        at("output_text.done", content_index=0, text="Once upon"),
    )
    assert item["content"][0]["text"] == "Once upon"


def test_the_end_of_a_part_replaces_what_was_folded() -> None:
    final = {"type": "output_text", "text": "all", "annotations": [1], "logprobs": []}
    (item,) = folded(
        added(MESSAGE), part(TEXT), at("output_text.delta", content_index=0, delta="x"), part(final, stage="done")
    )
    assert item["content"] == [final]


def test_the_end_of_an_item_replaces_what_was_folded() -> None:
    final = {"type": "message", "status": "completed", "content": [{**TEXT, "text": "all"}]}
    assert folded(added(MESSAGE), at("output_text.delta", content_index=0, delta="x"), done(final)) == [final]


def test_a_delta_without_an_announced_part_makes_one() -> None:
    (item,) = folded(added(MESSAGE), at("output_text.delta", content_index=0, delta="x"))
    assert item["content"] == [{**TEXT, "text": "x"}]


def test_two_texts_do_not_share_the_part_that_was_made_for_them() -> None:
    one, two = folded(
        added(MESSAGE),
        added(MESSAGE, 1),
        at("output_text.delta", content_index=0, delta="a"),
        at("output_text.delta", 1, content_index=0, delta="b"),
    )
    assert one["content"] == [{**TEXT, "text": "a"}]
    assert two["content"] == [{**TEXT, "text": "b"}]


def test_an_upstream_that_counts_parts_on_from_item_to_item_is_understood() -> None:
    one, two = folded(
        added({"type": "message"}),
        at("content_part.added", content_index=0, part=TEXT),
        at("output_text.delta", content_index=0, delta="a"),
        added({"type": "message"}, 1),
        at("content_part.added", 1, content_index=1, part=TEXT),
        at("output_text.delta", 1, content_index=1, delta="b"),
        at("content_part.added", 1, content_index=2, part=TEXT),
        at("output_text.delta", 1, content_index=2, delta="c"),
        at("output_text.delta", 1, content_index=1, delta="b"),
        at("output_text.done", 1, content_index=2, text="cc"),
    )
    assert [content["text"] for content in one["content"]] == ["a"]
    assert [content["text"] for content in two["content"]] == ["bb", "cc"]


def test_logprobs_are_gathered() -> None:
    (item,) = folded(
        added(MESSAGE),
        part({**TEXT, "logprobs": []}),
        at("output_text.delta", content_index=0, delta="a", logprobs=[{"token": "a"}]),
        at("output_text.delta", content_index=0, delta="b", logprobs=[{"token": "b"}]),
    )
    assert item["content"][0]["logprobs"] == [{"token": "a"}, {"token": "b"}]


def test_annotations_stand_at_their_index() -> None:
    citations = [{"type": "url_citation", "title": name} for name in "abc"]
    (item,) = folded(
        added(MESSAGE),
        part(TEXT),
        *(
            at("output_text.annotation.added", content_index=0, annotation_index=index, annotation=citation)
            for index, citation in enumerate(citations)
        ),
        at("output_text.annotation.added", content_index=0, annotation_index=1, annotation={"title": "new"}),
    )
    assert item["content"][0]["annotations"] == [citations[0], {"title": "new"}, citations[2]]


def test_a_refusal_grows() -> None:
    (item,) = folded(
        added(MESSAGE),
        part({"type": "refusal", "refusal": ""}),
        at("refusal.delta", content_index=0, delta="I "),
        at("refusal.delta", content_index=0, delta="won't"),
    )
    assert item["content"] == [{"type": "refusal", "refusal": "I won't"}]
    (item,) = folded(added(MESSAGE), at("refusal.done", content_index=0, refusal="No."))
    assert item["content"] == [{"type": "refusal", "refusal": "No."}]


def test_reasoning_text_grows() -> None:
    thinking = {"type": "reasoning", "summary": []}
    (item,) = folded(
        added(thinking),
        at("reasoning_text.delta", content_index=0, delta="Hm"),
        at("reasoning_text.delta", content_index=0, delta="m."),
    )
    assert item == {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hmm."}]}
    (item,) = folded(added(thinking), at("reasoning_text.done", content_index=0, text="Aha."))
    assert item["content"] == [{"type": "reasoning_text", "text": "Aha."}]


def test_a_reasoning_summary_grows_part_by_part() -> None:
    summary = {"type": "summary_text", "text": ""}
    (item,) = folded(
        added({"type": "reasoning", "summary": []}),
        at("reasoning_summary_part.added", summary_index=0, part=summary),
        at("reasoning_summary_text.delta", summary_index=0, delta="Fir"),
        at("reasoning_summary_text.done", summary_index=0, text="First"),
        at("reasoning_summary_part.done", summary_index=0, part={**summary, "text": "First."}),
        at("reasoning_summary_part.added", summary_index=1, part=summary),
        at("reasoning_summary_text.delta", summary_index=1, delta="Second"),
    )
    assert [one["text"] for one in item["summary"]] == ["First.", "Second"]


@pytest.mark.parametrize(
    ("events", "field", "start"),
    [
        ("function_call_arguments", "arguments", ""),
        ("mcp_call_arguments", "arguments", ""),
        ("custom_tool_call_input", "input", ""),
        ("code_interpreter_call_code", "code", None),
    ],
)
def test_what_a_tool_is_called_with_grows(events: str, field: str, start: str | None) -> None:
    call = {"type": "call", field: start}
    (item,) = folded(added(call), at(f"{events}.delta", delta='{"a"'), at(f"{events}.delta", delta=":1}"))
    assert item == {"type": "call", field: '{"a":1}'}
    (item,) = folded(added(call), at(f"{events}.delta", delta="{"), {**at(f"{events}.done"), field: "{}"})
    assert item == {"type": "call", field: "{}"}


def test_the_diff_of_a_patch_grows() -> None:
    call = {"type": "apply_patch_call", "operation": {"type": "update_file", "path": "a", "diff": ""}}
    (item,) = folded(
        added(call),
        at("apply_patch_call_operation_diff.delta", delta="-a\n"),
        at("apply_patch_call_operation_diff.delta", delta="+b\n"),
    )
    assert item["operation"] == {"type": "update_file", "path": "a", "diff": "-a\n+b\n"}
    (item,) = folded(added(call), at("apply_patch_call_operation_diff.done", diff="+c\n"))
    assert item["operation"]["diff"] == "+c\n"
    assert folded(added({"type": "apply_patch_call"}), at("apply_patch_call_operation_diff.delta", delta="x")) == [
        {"type": "apply_patch_call"}
    ]


def test_the_commands_of_a_shell_call_grow() -> None:
    (item,) = folded(
        added({"type": "shell_call", "action": {"commands": [], "timeout_ms": None}}),
        at("shell_call_command.added", command_index=0, command=""),
        at("shell_call_command.delta", command_index=0, delta="ls "),
        at("shell_call_command.delta", command_index=0, delta="-l"),
        at("shell_call_command.added", command_index=1, command="cd"),
        at("shell_call_command.delta", command_index=1, delta=" .."),
        at("shell_call_command.done", command_index=0, command="ls -la"),
    )
    assert item["action"] == {"commands": ["ls -la", "cd .."], "timeout_ms": None}


def test_the_transcript_belongs_to_the_newest_message() -> None:
    _, item, _ = folded(
        added(MESSAGE),
        added(MESSAGE, 1),
        added({"type": "function_call"}, 2),
        {"type": "response.audio.transcript.delta", "delta": "Hel"},
        {"type": "response.audio.transcript.delta", "delta": "lo"},
        {"type": "response.audio.delta", "delta": "AAAA"},
    )
    assert item["content"] == [{"type": "output_audio", "data": "", "transcript": "Hello"}]
    assert folded({"type": "response.audio.transcript.delta", "delta": "nobody's"}) == []


def test_a_preview_of_a_picture_replaces_the_one_before() -> None:
    call = {"type": "image_generation_call", "status": "in_progress", "result": None}
    (item,) = folded(
        added(call),
        at("image_generation_call.partial_image", partial_image_b64="AAAA", partial_image_index=0),
        at("image_generation_call.partial_image", partial_image_b64="BBBB", partial_image_index=1),
    )
    assert item["result"] == "BBBB"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("web_search_call.searching", "searching"),
        ("file_search_call.completed", "completed"),
        ("image_generation_call.generating", "generating"),
        ("code_interpreter_call.interpreting", "interpreting"),
        ("mcp_call.failed", "failed"),
    ],
)
def test_progress_of_a_call_is_its_status(kind: str, status: str) -> None:
    assert folded(added({"type": "call", "status": "in_progress"}), at(kind)) == [{"type": "call", "status": status}]


def test_progress_gives_no_status_to_an_item_without_one() -> None:
    assert folded(added({"type": "mcp_list_tools"}), at("mcp_list_tools.completed")) == [{"type": "mcp_list_tools"}]


def test_items_stand_in_the_order_of_their_index() -> None:
    assert folded(*(added({"id": index}, index) for index in (2, 0, 10, 1))) == [{"id": n} for n in (0, 1, 2, 10)]


def test_unknown_events_change_nothing() -> None:
    before = [added(MESSAGE), part(TEXT), at("output_text.delta", content_index=0, delta="a")]
    others = [at("unheard_of.delta", content_index=0, delta="b"), {"type": "response.completed", "response": {}}]
    assert folded(*before, *others) == folded(*before)


def test_an_event_for_an_item_that_was_never_added_is_passed_over() -> None:
    assert folded(at("output_text.delta", 3, content_index=0, delta="a"), at("web_search_call.searching", 3)) == []


def test_the_output_may_be_read_in_the_middle() -> None:
    fold, seen = Fold(), []
    for event in (
        added({**MESSAGE, "content": []}),
        *(at("output_text.delta", content_index=0, delta=c) for c in "abc"),
    ):
        fold.apply(event)
        seen.append("".join(content["text"] for content in plain(fold)[0]["content"]))
    assert seen == ["", "a", "ab", "abc"]


# What no upstream should send.

KINDS = [*_FOLDS, "response.web_search_call.searching"]
indexes = st.integers(-1, 2) | st.integers(10**9, 10**18) | json_values
odd_events = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | json_values},
    optional={
        "output_index": indexes,
        "content_index": indexes,
        "summary_index": indexes,
        "annotation_index": indexes,
        "command_index": indexes,
        "item": json_values | st.builds(dict, type=st.just("message"), content=json_values, status=json_values),
        "part": json_values | st.just(TEXT),
        "delta": st.text(max_size=3) | json_values,
        "text": json_values,
        "annotation": json_values,
        "command": json_values,
        "logprobs": json_values,
        "partial_image_b64": json_values,
    },
)


@moderate
@given(st.lists(odd_events | json_objects, max_size=20))
def test_arbitrary_events_never_raise(events: list[Json]) -> None:
    fold = Fold()
    for event in events:
        fold.apply(orjson.loads(orjson.dumps(event)))
    plain(fold)


@pytest.mark.parametrize("kind", sorted(_FOLDS))
def test_a_huge_index_allocates_nothing(kind: str) -> None:
    huge = 2**62
    fold = Fold()
    fold.apply(added({"type": "message", "action": {}, "operation": {}, "content": [dict(TEXT)]}, huge))
    for _ in range(3):
        fold.apply(
            {
                "type": kind,
                **dict.fromkeys(
                    ("output_index", "content_index", "summary_index", "annotation_index", "command_index"), huge
                ),
                **dict.fromkeys(("delta", "text", "command", "refusal", "diff", "partial_image_b64"), "x"),
                "part": dict(TEXT),
                "item": MESSAGE,
                "annotation": {},
            }
        )
    assert len(dumps(fold.output)) < 500


def test_a_text_is_joined_only_when_it_is_read() -> None:
    """Adding keeps the delta as it is: what a delta costs does not depend on what came before it."""
    text = Text("a")
    for _ in range(1000):
        text.add("b")
    assert len(text._parts) == 1001
    assert str(text) == "a" + 1000 * "b"
    assert text._parts == [str(text)]


def test_other_objects_are_no_json() -> None:
    with pytest.raises(TypeError):
        dumps({"a": object()})


# Real traffic.


def recorded(path: Path) -> tuple[list[Json], Json]:
    """The events before the terminal one, and its response."""
    events = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    (last,) = (event for event in events if event["type"] in TERMINAL_EVENTS)
    return events[: events.index(last)], last["response"]


def test_the_fold_of_every_recording_is_the_output_of_its_terminal_event(recordings: Path) -> None:
    paths = sorted(recordings.glob("*.jsonl"))
    assert paths
    for path in paths:
        events, final = recorded(path)
        assert readable(folded(*events)) == readable(final["output"]), path.name


def readable(output: list[Json]) -> list[Json]:
    """Without what the provider encrypts anew for each event that it sends."""
    return [{name: value for name, value in item.items() if name != "encrypted_content"} for item in output]


STREAMED = ("type", "id", "content", "summary", "arguments", "input", "operation", "result")
"""What events of their own tell of an item, before it is done."""


def test_before_an_item_is_done_all_that_is_streamed_of_it_is_there(recordings: Path) -> None:
    for path in sorted(recordings.glob("*.jsonl")):
        events, final = recorded(path)
        growing = folded(*(event for event in events if event["type"] != "response.output_item.done"))
        assert [streamed(item) for item in growing] == [streamed(item) for item in final["output"]], path.name


def streamed(item: Json) -> Json:
    return {name: item[name] for name in STREAMED if name in item}
