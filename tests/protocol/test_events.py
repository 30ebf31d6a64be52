"""Events keep every byte but their number."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol.events import (
    Event,
    MalformedEvent,
    encode_lifecycle,
    halve_lifecycle,
    parse_event,
    renumber,
    strip_obfuscation,
)
from server.protocol.sse import encode_frame, frame_data, parse_block
from tests.support.generated import json_objects, json_values, moderate

DELTA = "response.output_text.delta"
encoders = st.sampled_from(
    [
        orjson.dumps,
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, indent=2).encode(),
        lambda value: json.dumps(value, separators=(" ,\t", " : "), ensure_ascii=False).encode(),
        lambda value: json.dumps(value, indent=1).replace("\n", "\r\n").encode(),
    ]
)


def renumbered(data: bytes, number: int = 42, name: str = DELTA) -> bytes:
    return frame_data(renumber(parse_event(name, data), number))


@moderate
@given(json_objects, encoders, st.integers(0, 10**9))
def test_any_event_parses_to_the_same_but_for_its_number(payload: dict[str, Any], encode: Any, number: int) -> None:
    payload["type"] = DELTA
    out = renumber(parse_event("", encode(payload)), number)
    assert out.count(b"\n") == 3
    assert out.startswith(b"event: " + DELTA.encode() + b"\ndata: ")
    assert orjson.loads(frame_data(out)) == {**payload, "sequence_number": number}


@moderate
@given(json_objects, json_objects, json_objects, st.integers(0, 10**6), st.integers(0, 10**9))
def test_all_other_bytes_stay(
    before: dict[str, Any], after: dict[str, Any], item: dict[str, Any], old: int, new: int
) -> None:
    nested = {"sequence_number": 5, "text": '"sequence_number":5', "item": item}
    payload = {
        "type": DELTA,
        **{f"before {key}": value for key, value in before.items()},
        "item": nested,
        "sequence_number": old,
        **{f"after {key}": value for key, value in after.items()},
        "last": nested,
    }
    assert renumbered(orjson.dumps(payload), new) == orjson.dumps({**payload, "sequence_number": new})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"type":"t","sequence_number":7}', b'{"type":"t","sequence_number":42}'),
        (b'{"sequence_number" : 7 , "type":"t"}', b'{"sequence_number" : 42 , "type":"t"}'),
        (b'{"type":"t","sequence_number":null}', b'{"type":"t","sequence_number":42}'),
        (b'{"type":"t","sequence_number":7.5e3}', b'{"type":"t","sequence_number":42}'),
        (b'{"type":"t","sequence_number":-1}', b'{"type":"t","sequence_number":42}'),
        (b'{"type":"t","sequence_number":"7"}', b'{"type":"t","sequence_number":42}'),
        (b'{"type":"t","sequence_number":true}', b'{"type":"t","sequence_number":42}'),
        (b'{"type":"t","sequence_number":{"a":[1]}}', b'{"type":"t","sequence_number":42}'),
        (b'{"type":"t","sequence_number":"a\\"b"}', b'{"type":"t","sequence_number":42}'),
        (b'{"type":"t"}', b'{"sequence_number":42,"type":"t"}'),
        (b'{ "type":"t"}', b'{"sequence_number":42,"type":"t"}'),
        (b"{}", b'{"sequence_number":42}'),
        (b"{ }", b'{"sequence_number":42}'),
    ],
)
def test_the_number_may_be_missing_or_anything(data: bytes, expected: bytes) -> None:
    assert renumbered(data, name="t") == expected


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"t","item":{"sequence_number":5},"sequence_number":%d}',
        b'{"type":"t","sequence_number":%d,"item":{"sequence_number":5}}',
        b'{"type":"t","items":[{"sequence_number":5},{"a":[{"sequence_number":6}]}],"sequence_number":%d,"z":[1]}',
        b'{"type":"t","delta":"\\"sequence_number\\":5","sequence_number":%d}',
        b'{"type":"t","sequence_number":%d,"delta":"{\\"sequence_number\\":5}"}',
        b'{"type":"t","delta":"sequence_number","sequence_number":%d}',
        b'{"type":"t","odd\\"sequence_number":5,"sequence_number":%d}',
        b'{"type":"t","delta":"} ] \\\\","sequence_number":%d,"x":{"sequence_number":5}}',
    ],
)
def test_only_the_number_of_the_event_itself_is_replaced(data: bytes) -> None:
    assert renumbered(data % 7) == data % 42


def test_a_nested_number_does_not_stand_in_for_a_missing_one() -> None:
    data = b'{"type":"t","item":{"sequence_number":5}}'
    assert renumbered(data) == b'{"sequence_number":42,"type":"t","item":{"sequence_number":5}}'


def test_a_nested_number_does_not_stand_in_for_one_that_is_no_number() -> None:
    data = b'{"type":"t","sequence_number":true,"item":{"sequence_number":5}}'
    assert orjson.loads(renumbered(data)) == {"type": "t", "sequence_number": 42, "item": {"sequence_number": 5}}


def test_of_a_number_given_twice_the_last_counts() -> None:
    for last in (b"2", b"null", b"true", b"[1]"):
        data = b'{"type":"t","sequence_number":1,"x":"sequence_number","sequence_number":%b}' % last
        assert json.loads(renumbered(data)) == {"type": "t", "x": "sequence_number", "sequence_number": 42}


def test_pretty_printed_data_becomes_one_line() -> None:
    data = b'{\r\n  "type": "t",\n  "sequence_number": 7,\n  "delta": "a\\nb"\n}\n'
    assert renumbered(data) == b'{    "type": "t",   "sequence_number": 42,   "delta": "a\\nb" }'


def test_a_long_string_costs_no_memory_of_its_own() -> None:
    picture = b"A" * 3_000_000
    data = b'{"type":"t","b64":"%b","item":{"sequence_number":5},"sequence_number":7}' % picture
    assert renumbered(data).endswith(b'{"sequence_number":5},"sequence_number":42}')


def test_the_type_comes_from_the_data_or_else_from_the_name() -> None:
    assert parse_event("a", b'{"type":"b"}').type == "b"
    assert parse_event("a", b"{}").type == "a"
    assert parse_event("a", b'{"type":null}').type == "a"
    assert parse_event("", b'{"error":{"message":"m"}}').type == "error"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (DELTA, b""),
        (DELTA, b"[DONE]"),
        (DELTA, b"{"),
        (DELTA, b"[]"),
        (DELTA, b"null"),
        (DELTA, b"\xff"),
        (DELTA, b'{"a":"\n"}'),
        (DELTA, b'{"type":5}'),
        (DELTA, b'{"type":"two words"}'),
        (DELTA, b'{"type":"a\\nb"}'),
        (DELTA, b'{"type":"' + b"x" * 129 + b'"}'),
        (DELTA, b"[" * 100_000),
        (DELTA, b'{"a":' + b"[" * 600 + b"]" * 600 + b"}"),
        ("", b"{}"),
        ("a\ufffdb", b"{}"),
    ],
)
def test_what_is_no_event_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(MalformedEvent):
        parse_event(name, data)


def test_a_refusal_does_not_quote_the_event() -> None:
    with pytest.raises(MalformedEvent) as refused:
        parse_event("", b'{"secret')
    assert "secret" not in str(refused.value)


@moderate
@given(st.text(max_size=20), st.binary() | json_values.map(orjson.dumps))
def test_arbitrary_data_is_an_event_or_malformed(name: str, data: bytes) -> None:
    try:
        event = parse_event(name, data)
    except MalformedEvent:
        return
    assert orjson.loads(frame_data(renumber(event, 1)))["sequence_number"] == 1
    assert event.response is None or event.response == event.payload["response"]
    assert event.error is None or isinstance(event.error, dict)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"type": "error", "error": {"message": "m"}}, {"message": "m"}),
        ({"type": "error", "message": "m"}, {"message": "m"}),
        ({"type": "error", "error": "m"}, {"message": "m"}),
        ({"type": "error", "sequence_number": 3}, {}),
        ({"type": "t", "error": {"message": "m"}}, None),
        ({"type": "t", "error": None}, None),
        ({"type": "t"}, None),
    ],
)
def test_an_error_is_recognised_in_every_form(payload: dict[str, Any], error: dict[str, Any] | None) -> None:
    assert Event(payload["type"], payload, orjson.dumps(payload)).error == error


@moderate
@given(json_objects, st.integers(0, 10**9))
def test_the_halves_of_a_lifecycle_event_join_to_the_whole(response: dict[str, Any], number: int) -> None:
    head, tail = halve_lifecycle("response.failed", response)
    assert head + b"%d" % number + tail == encode_lifecycle("response.failed", number, response)


def test_a_lifecycle_event_is_one_frame_with_type_number_and_response() -> None:
    frame = parse_block(encode_lifecycle("response.queued", 1, {"id": "x", "text": "a\nb"}))
    assert frame is not None
    assert frame.name == "response.queued"
    assert orjson.loads(frame.data) == {
        "type": "response.queued",
        "sequence_number": 1,
        "response": {"id": "x", "text": "a\nb"},
    }


def test_obfuscation_is_stripped_from_the_event_alone() -> None:
    payload = {"type": DELTA, "delta": '"obfuscation"', "sequence_number": 4, "item": {"obfuscation": "kept"}}
    frame = encode_frame(DELTA, orjson.dumps({**payload, "obfuscation": "xyz"}))
    assert strip_obfuscation(frame) == encode_frame(DELTA, orjson.dumps(payload))


@pytest.mark.parametrize("data", [b'{"a": 1.0}', b'{"delta":"obfuscation"}', b'{"item":{"obfuscation":"x"} }'])
def test_a_frame_without_obfuscation_keeps_its_bytes(data: bytes) -> None:
    frame = encode_frame(DELTA, data)
    assert strip_obfuscation(frame) == frame
