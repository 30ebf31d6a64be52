"""Server-sent events: any bytes in any chunks give the events of the standard (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import re

from server.protocol.sse import SseParser, encode_frame, frame_data, parse_block, split_frames
from tests.fuzz.material import Material

_PIECES = (
    *(b"data: ", b"data:", b"data", b"event: ", b"event:", b"id: 1", b":", b"retry: 5", b"datax: ", b"{}", b"[DONE]"),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b" ", b"\x00", b"\xef\xbb\xbf", b"\xff", b"\xc3"),
)


def fuzz(data: bytes) -> None:
    material = Material(data)
    # A reader can't tell whether a CR at the very end is a whole line end, so there is always something behind.
    raw = b"".join(_piece(material) for _ in material.times(40)) + b"\n: the end\n\n"
    told = _events(material.cuts(raw))
    assert told == _events([raw])
    assert told == _events([raw[place : place + 1] for place in range(len(raw))])
    assert told == _by_the_standard(raw)
    _check_frames([data for _, data in told])


def _piece(material: Material) -> bytes:
    return material.pick(_PIECES) if material.number(8) else material.raw(material.number(16))


def _events(chunks: list[bytes]) -> list[tuple[str, bytes]]:
    parser = SseParser()
    return [(event.name, event.data) for chunk in chunks for event in parser.feed(chunk)]


def _by_the_standard(raw: bytes) -> list[tuple[str, bytes]]:
    """The standard's algorithm, line by line, on the whole stream. A name loses its white space, which is ours."""
    events: list[tuple[str, bytes]] = []
    name, data = "", list[bytes]()
    for line in re.sub(rb"\r\n|\r", b"\n", raw.removeprefix(b"\xef\xbb\xbf")).split(b"\n"):
        field, _, value = line.partition(b":")
        if line == b"":
            if data:
                events.append((name, b"\n".join(data)))
            name, data = "", []
        elif field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip().decode("utf-8", "replace")
    return events


def _check_frames(told: list[bytes]) -> None:
    """What we send is read as it was meant, in a batch too."""
    told = [re.sub(rb"[\r\n]", b" ", data) for data in told]
    frames = [encode_frame("response.x", data) for data in told]
    assert split_frames(b"".join(frames)) == frames
    assert [frame_data(frame) for frame in frames] == told
    assert [(event.name, event.data) for frame in frames if (event := parse_block(frame))] == [
        ("response.x", data) for data in told
    ]
