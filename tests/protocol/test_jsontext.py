"""JSON as JavaScript, Python and Go write it: what every client's parser takes is read, and written as it stood."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol import jsontext
from tests.support.generated import json_values, moderate


@pytest.mark.parametrize(
    "text",
    [
        r'{"cut":"\ud83d"}',
        r'{"cut":"\ude00 and so on"}',
        '{"far":1e400}',
        '{"far":-1e999}',
        '{"id":18446744073709551616}',
        '{"id":-9223372036854775809}',
        '{"maximum":%s}' % ("9" * 5000),
        '{"maximum":9223372036854775807}',
        '{"exact":18446744073709551615}',
        r'{"deep":[{"cut":"\ud83d","far":1e400,"n":100000000000000000000000}]}',
    ],
)
def test_what_the_fast_parser_refuses_or_rounds_is_written_as_it_stood(text: str) -> None:
    assert jsontext.dumps(jsontext.loads(text.encode())) == text.encode()


def test_two_halves_that_meet_are_one_character() -> None:
    halves = jsontext.loads(rb'["\ud83d", "\ude00"]')
    assert json.loads(jsontext.dumps({"text": "".join(halves)})) == {"text": "😀"}


def test_a_byte_order_mark_is_passed_over() -> None:
    assert jsontext.loads(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


@pytest.mark.parametrize(
    "text", [b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":"\xff"}', b'{"a":1,}', b"{", b"", b"[" * 9000]
)
def test_what_some_clients_refuse_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        jsontext.loads(text)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (b'{"a":NaN,"b":[Infinity]}', b'{"a":null,"b":[null]}'),
        (b'{"a":"\xff"}', '{"a":"\ufffd"}'.encode()),
        (rb'{"a":"\ud83d"}', rb'{"a":"\ud83d"}'),
        (b'{ "a" : 1.50 }', b'{ "a" : 1.50 }'),
    ],
)
def test_an_upstreams_text_is_mended_and_else_left_as_it_is(text: bytes, mended: bytes) -> None:
    value, written = jsontext.mended(text)
    assert written == mended
    assert jsontext.dumps(value) == jsontext.dumps(json.loads(mended))


@pytest.mark.parametrize("text", [b'{"a":1', b'{"a":\x01}', b"<html>", b"[" * 9000])
def test_what_nobody_can_read_is_not_mended(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        jsontext.mended(text)


@moderate
@given(json_values)
def test_all_that_the_fast_parser_reads_is_read_alike(value: Any) -> None:
    text = orjson.dumps(value)
    assert jsontext.loads(text) == orjson.loads(text)
    assert jsontext.mended(text) == (value, text)


@moderate
@given(st.recursive(st.text(st.characters(), max_size=4) | st.booleans(), lambda inner: st.lists(inner, max_size=3)))
def test_every_text_comes_back(value: Any) -> None:
    # Half an emoji beside its other half is the whole emoji: that alone may differ.
    assert json.loads(jsontext.dumps(value)) == json.loads(json.dumps(value))


def test_what_is_nested_too_deeply_can_not_be_written() -> None:
    value: list[Any] = ["\ud83d"]
    for _ in range(2000):
        value = [value]
    with pytest.raises(orjson.JSONEncodeError):
        jsontext.dumps(value)
    with pytest.raises(orjson.JSONDecodeError):
        jsontext.mended(b'{"a": NaN, "b": ' + b"[" * 300 + b"]" * 300 + b"}")
