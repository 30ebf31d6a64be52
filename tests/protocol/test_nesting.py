"""What is too deeply nested to be written is refused before it is kept."""

from __future__ import annotations

import orjson
import pytest

from server.protocol.nesting import is_too_deep


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("levels", [1, 10, 100, 200])
def test_what_people_send_is_not_too_deep(levels: int) -> None:
    assert not is_too_deep(nested(levels), orjson.loads(nested(levels)))


@pytest.mark.parametrize("levels", [240, 254, 255, 500, 1023])
def test_what_can_be_read_but_not_written_is_too_deep(levels: int) -> None:
    assert is_too_deep(nested(levels), orjson.loads(nested(levels)))


@pytest.mark.parametrize("levels", range(195, 260))
def test_what_is_let_through_can_be_written_with_more_around_it(levels: int) -> None:
    value = orjson.loads(nested(levels))
    if not is_too_deep(nested(levels), value):
        orjson.dumps({"response": {"output": [{"content": [{"part": value}]}]}})


def test_many_brackets_side_by_side_are_not_deep() -> None:
    raw = b"[" + b",".join([b"[{}]"] * 5000) + b"]"
    assert not is_too_deep(raw, orjson.loads(raw))
