"""Server-sent events: any bytes in any chunks give the events that the standard says."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protocol import sse
from server.protocol.sse import (
    EventTooLong,
    ServerEvent,
    SseParser,
    encode_frame,
    frame_data,
    parse_block,
    split_frames,
)
from tests.support.generated import moderate

LINE_ENDS = ("\n", "\r\n", "\r")

words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"), max_size=12)
lines = (
    words.map(lambda text: f"data: {text}")
    | words.map(lambda text: f"data:{text}")
    | words.map(lambda text: f"event: {text.strip()}")
    | words.map(lambda text: f":{text}")
    | st.sampled_from(["id: 7", "retry: 100", "nonsense", "dat: x", ": data: no"])
)
blocks = st.lists(lines, min_size=1, max_size=5)


def reference(text: str) -> list[tuple[str, str]]:
    """The standard's algorithm, line by line, on a whole stream: name and data of each event."""
    events: list[tuple[str, str]] = []
    name, data = "", list[str]()
    for line in re.sub("\r\n|\r", "\n", text).split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                events.append((name, "\n".join(data)))
            name, data = "", []
        elif field == "data":
            data.append(value)
        elif field == "event":
            name = value.strip()
    return events


def parsed(chunks: Iterable[bytes]) -> list[ServerEvent]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def cut(raw: bytes, places: Iterable[int]) -> list[bytes]:
    """The bytes in chunks, some of them empty."""
    ends = sorted(place % (len(raw) + 1) for place in places)
    return [raw[start:end] for start, end in zip([0, *ends], [*ends, len(raw)], strict=True)]


@moderate
@given(st.lists(blocks, max_size=5), st.sampled_from(LINE_ENDS), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_chunking_gives_the_events_of_the_standard(stream: list[list[str]], end: str, places: list[int]) -> None:
    text = "".join(end.join(block) + 2 * end for block in stream)
    events = parsed(cut(text.encode(), places))
    assert [(event.name, event.data.decode()) for event in events] == reference(text)


@moderate
@given(st.lists(st.tuples(lines | st.just(""), st.sampled_from(LINE_ENDS)), max_size=20), st.data())
def test_line_ends_may_be_mixed(written: list[tuple[str, str]], data: st.DataObject) -> None:
    text = "".join(line + end for line, end in written) + ": the end\n\n"
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=20))
    events = parsed(cut(text.encode(), places))
    assert [(event.name, event.data.decode()) for event in events] == reference(text)


@pytest.mark.parametrize("end", LINE_ENDS)
def test_every_single_byte_may_be_a_chunk(end: str) -> None:
    text = "".join(f"event: e{number}{end}data: {number}{end}{end}" for number in range(5))
    events = parsed(bytes([byte]) for byte in text.encode())
    assert [(event.name, event.data) for event in events] == [(f"e{n}", b"%d" % n) for n in range(5)]


@pytest.mark.parametrize("end", LINE_ENDS)
def test_an_event_comes_with_the_last_byte_of_its_blank_line(end: str) -> None:
    text = f"data: now{end}{end}".encode()
    parser = SseParser()
    assert list(parser.feed(text[:-1])) == []
    assert [event.data for event in parser.feed(text[-1:])] == [b"now"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_bytes_of_the_events_are_the_bytes_of_the_stream(end: str) -> None:
    text = "".join(f"event: e{end}id: {n}{end}data: {n}{end}{end}" for n in range(20)).encode()
    for size in (1, 2, 3, 7, 1000):
        events = parsed(text[at : at + size] for at in range(0, len(text), size))
        assert b"".join(event.raw for event in events) == text


def test_a_comment_is_no_event() -> None:
    assert parsed([b": keep-alive\n\n", sse.HEARTBEAT, b":\n\n", b"\n\n"]) == []


def test_a_comment_inside_an_event_is_passed_over() -> None:
    assert [event.data for event in parsed([b": one\ndata: x\n: two\n\n"])] == [b"x"]


def test_several_lines_of_data_are_one_text() -> None:
    assert parsed([b'data: {\ndata: "a": 1\ndata: }\n\n'])[0].data == b'{\n"a": 1\n}'


def test_an_event_may_have_no_name() -> None:
    assert parsed([b"data: x\n\n"])[0].name == ""


def test_the_space_after_the_colon_is_optional_and_only_one() -> None:
    events = parsed([b"data:x\n\n", b"data: x\n\n", b"data:  x\n\n"])
    assert [event.data for event in events] == [b"x", b"x", b" x"]


def test_an_event_without_data_is_dropped() -> None:
    assert parsed([b"event: ping\n\n", b"id: 7\n\n"]) == []


def test_an_unfinished_event_is_not_told() -> None:
    assert parsed([b"data: x\n"]) == []


def test_a_name_that_is_not_utf8_does_not_raise() -> None:
    assert parse_block(b"event: \xff\ndata: x\n\n") == ("\N{REPLACEMENT CHARACTER}", b"x", b"event: \xff\ndata: x\n\n")


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LONGEST_EVENT_BYTES", 1000)
    parser = SseParser()
    assert list(parser.feed(1000 * b"x")) == []
    with pytest.raises(EventTooLong):
        list(parser.feed(b"x"))


def test_the_bound_is_for_one_event_not_for_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LONGEST_EVENT_BYTES", 1000)
    parser = SseParser()
    for _ in range(100):
        assert len(list(parser.feed(b"data: " + 900 * b"x" + b"\n\n"))) == 1


def test_a_large_event_in_small_chunks_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search begins where the last one ended, but for the bytes that a blank line may straddle."""
    searched = 0

    class Counting:
        def search(self, buffer: bytearray, start: int = 0) -> re.Match[bytes] | None:
            nonlocal searched
            searched += len(buffer) - start
            return pattern.search(buffer, start)

    pattern = sse._BLANK_LINE
    monkeypatch.setattr(sse, "_BLANK_LINE", Counting())
    text = b"data: " + 20_000 * b"x" + b"\n\n"
    assert len(parsed(bytes([byte]) for byte in text)) == 1
    assert searched < 5 * len(text)


@moderate
@given(st.lists(st.from_regex(r"[a-z_.]{1,20}", fullmatch=True), max_size=6), st.binary(max_size=20))
def test_frames_of_ours_can_be_taken_apart_again(types: list[str], raw: bytes) -> None:
    data = raw.replace(b"\n", b"").replace(b"\r", b"")
    frames = [encode_frame(kind, data) for kind in types]
    assert split_frames(b"".join(frames)) == frames
    assert [frame_data(frame) for frame in frames] == [data for _ in types]
    assert [(e.name, e.data) for e in parsed(frames)] == [(kind, data) for kind in types]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_byte_order_mark_may_open_the_stream(size: int) -> None:
    raw = b"\xef\xbb\xbfevent: e\ndata: x\n\ndata: y\n\n"
    events = parsed(raw[start : start + size] for start in range(0, len(raw), size))
    assert [(event.name, event.data) for event in events] == [("e", b"x"), ("", b"y")]


def test_a_stream_may_begin_like_a_byte_order_mark_without_one() -> None:
    assert parsed([b"\xef", b"\xbb", b"\ndata: x\n\n"])[0].data == b"x"
    assert parsed([b"", b"data: x\n\n"])[0].data == b"x"


def test_a_field_without_a_colon_is_empty() -> None:
    events = parsed([b"data\n\nevent: e\nevent\ndata: x\ndata\n\n"])
    assert [(event.name, event.data) for event in events] == [("", b""), ("", b"x\n")]
