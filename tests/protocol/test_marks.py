"""Marks come off as they went on, belong to their owner, and are put on items and tools alone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.marks import MARK, marked, may_have_places, parse_marked, places
from server.protocol.sse import ServerEvent, encode_frame, parse_block
from server.upstream.affinity import Marker
from tests.support.generated import json_objects, moderate

SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32

values = st.text(st.characters(codec="ascii"), min_size=1)
names = st.from_regex(r"[A-Za-z0-9._:-]{1,80}", fullmatch=True)


@moderate
@given(values | values.map(lambda value: f"cntr_{value}"), names)
def test_a_mark_comes_off_as_it_went_on(value: str, deployment: str) -> None:
    text = marked(value, deployment, "alice", SECRET)
    assert text.startswith("cntr_") == value.startswith("cntr_")
    found = parse_marked(text)
    assert found is not None
    assert (found.deployment, found.value) == (deployment, value)
    assert found.is_genuine("alice", [OTHER_SECRET, SECRET])
    assert not found.is_genuine("bob", [SECRET])
    assert not found.is_genuine("alice", [OTHER_SECRET])


@moderate
@given(values, names, names.filter(lambda name: name != "main"))
def test_nothing_of_a_mark_can_be_changed(value: str, deployment: str, other: str) -> None:
    found = parse_marked(marked(value, deployment, "alice", SECRET))
    assert found is not None
    for changed in (
        found._replace(value=value + "x"),
        found._replace(check=found.check[:-1] + ("A" if found.check[-1] != "A" else "B")),
        found._replace(check=""),
        found._replace(deployment=deployment + other),
    ):
        assert not changed.is_genuine("alice", [SECRET])


def test_the_same_mark_is_put_on_once_and_another_ones_is_marked_over() -> None:
    once = marked("gAAAA", "main", "alice", SECRET)
    assert marked(once, "main", "alice", SECRET) == once
    for owner, deployment, secret in (
        ("bob", "main", SECRET),
        ("alice", "other", SECRET),
        ("alice", "main", OTHER_SECRET),
    ):
        twice = parse_marked(marked(once, deployment, owner, secret))
        assert twice is not None
        assert twice.value == once


@moderate
@given(st.text() | st.text().map(lambda tail: MARK + tail) | st.text().map(lambda tail: f"cntr_{MARK}{tail}"))
def test_arbitrary_text_never_raises(text: str) -> None:
    parse_marked(text)


@pytest.mark.parametrize(
    "text",
    ["", MARK, f"{MARK}.", f"{MARK}bWFpbg", f"{MARK}bWFpbg.check", f"{MARK}!.check.x", f"{MARK}w6k.check.x", "x"],
)
def test_what_has_no_mark_is_none(text: str) -> None:
    assert parse_marked(text) is None


REASONING = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA=="}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"output": [REASONING]}, ["gAAAA=="]),
        ({"response": {"output": [REASONING], "instructions": [REASONING]}}, ["gAAAA==", "gAAAA=="]),
        ({"type": "response.output_item.done", "item": REASONING}, ["gAAAA=="]),
        ({"object": "list", "data": [{"type": "compaction", "encrypted_content": "gBBBB"}]}, ["gBBBB"]),
        ({"input": [{"type": "code_interpreter_call", "container_id": "cntr_1"}, REASONING]}, ["cntr_1", "gAAAA=="]),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, ["cntr_1"]),
        ({"tools": [{"environment": {"type": "container_reference", "container_id": "cntr_1"}}]}, ["cntr_1"]),
        ({"annotation": {"type": "container_file_citation", "container_id": "cntr_1"}}, ["cntr_1"]),
        ({"part": {"annotations": [{"container_id": "cntr_1"}]}}, ["cntr_1"]),
        # None of these is an account's.
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, []),
        ({"output": [{"encrypted_content": None}, {"encrypted_content": ""}, {"encrypted_content": "é"}]}, []),
        ({"output": [{"container_id": "my-own"}, {"id": "cntr_1"}]}, []),
        ({"metadata": {"container_id": "cntr_1", "encrypted_content": "x"}}, []),
        ({"output": "gAAAA==", "input": "text", "item": None, "response": None}, []),
    ],
)
def test_only_values_of_items_and_tools_are_found(body: dict[str, Any], found: list[str]) -> None:
    assert [place.value for place in places(body)] == found
    assert not found or may_have_places(orjson.dumps(body))


def test_what_is_nested_too_deeply_for_python_is_looked_through_all_the_same() -> None:
    raw = b'{"output":' + b"[" * 1000 + b'{"encrypted_content":"gAAAA"}' + b"]" * 1000 + b"}"
    assert [place.value for place in places(orjson.loads(raw))] == ["gAAAA"]


# Marking the bytes of an answer.

MARKER = Marker("main", "alice", SECRET)


@moderate
@given(json_objects)
def test_no_other_byte_changes(fields: dict[str, Any]) -> None:
    rest = {f"x {name}": value for name, value in fields.items()}
    raw = orjson.dumps({**rest, "output": [REASONING], "more": 1.5})
    expected = raw.replace(b'"gAAAA=="', orjson.dumps(marked("gAAAA==", "main", "alice", SECRET)))
    assert orjson.loads(MARKER.mark(raw)) == orjson.loads(expected)


@pytest.mark.parametrize(
    "written", [b'"gAAAAB12345+/=="', b'"gAAAAB12345+\\/\\u003d\\u003d"', b'"gAAAAB12345\\u002b/=="']
)
def test_a_value_is_found_however_its_characters_are_escaped(written: bytes) -> None:
    raw = b'{"output": [{"type": "reasoning", "encrypted_content": %b}], "n": 1.50}' % written
    assert orjson.loads(MARKER.mark(raw))["output"][0]["encrypted_content"] == marked(
        "gAAAAB12345+/==", "main", "alice", SECRET
    )


def test_an_event_keeps_its_name_or_that_it_has_none() -> None:
    data = orjson.dumps({"type": "response.output_item.done", "item": REASONING}).replace(b",", b",\n")
    for name in ("response.output_item.done", ""):
        event = MARKER.event(ServerEvent(name, data, b""))
        again = parse_block(event.raw)
        assert again is not None
        assert (again.name, again.data) == (name, event.data)
        assert MARK.encode() in event.data


@pytest.mark.parametrize("data", [b'{"delta": "cntr_ is no id"}', b"not json", b"[]", b'{"item": {"id": 1}}', b""])
def test_what_holds_nothing_of_the_kind_keeps_its_bytes(data: bytes) -> None:
    event = ServerEvent("x", data, encode_frame("x", data))
    assert MARKER.event(event) is event
    assert Marker("main", "alice", SECRET, needed=False).mark(orjson.dumps({"item": REASONING})) == orjson.dumps(
        {"item": REASONING}
    )
