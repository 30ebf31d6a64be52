"""Server-sent events: the parser for upstream bytes, and frames for clients (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from typing import NamedTuple

HEARTBEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

LONGEST_EVENT_BYTES = 64 * 1024 * 1024
"""A longer event is refused. A generated image comes in one event of several megabytes."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Atomic: CRLF is one line end, never two.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(NamedTuple):
    """One event as it came: its name (empty if it has none), its data, and all its bytes."""

    name: str
    data: bytes
    raw: bytes


class EventTooLong(ValueError):
    """An event exceeds `LONGEST_EVENT_BYTES`."""


class SseParser:
    """Cuts a byte stream into events, however it is chunked. It holds at most one unfinished event of bounded size."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._opened = False
        """Whether the stream has begun, and the byte order mark that it may begin with is dropped."""
        self._plain = True
        """Whether every line so far ended in LF alone."""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events completed by this chunk; comments and events without data are dropped.

        Raises:
            EventTooLong

        """
        if not self._opened:
            chunk = self._opening(chunk)
        if not self._plain or b"\r" in chunk:
            self._plain = False
            return self._feed_any(chunk)
        # Nearly all upstreams end lines with LF alone; this path is three times as fast as looking for any line end.
        self._rest += chunk
        # A blank line may straddle the chunks.
        end = self._rest.rfind(b"\n\n", max(0, self._searched - 1))
        if end < 0:
            self._searched = len(self._rest)
            self._check_length()
            return []
        blocks = bytes(self._rest[:end]).split(b"\n\n")
        del self._rest[: end + 2]
        self._searched = 0
        self._check_length()
        return [event for block in blocks if (event := _parse_plain(block)) is not None]

    def _opening(self, chunk: bytes) -> bytes:
        """The first bytes without a byte order mark, which may come in pieces; nothing while it may still come."""
        opening = bytes(self._rest) + chunk
        self._rest.clear()
        self._searched = 0
        if len(opening) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(opening):
            self._rest += opening
            return b""
        self._opened = True
        return opening.removeprefix(_BYTE_ORDER_MARK)

    def _feed_any(self, chunk: bytes) -> list[ServerEvent]:
        rest, events = self._rest, []
        rest += chunk
        # A blank line may straddle the chunks by up to three bytes.
        found = _BLANK_LINE.search(rest, max(0, self._searched - 3))
        start = 0
        while found is not None and not _may_grow(found, rest):
            event = parse_block(bytes(rest[start : found.end()]))
            start = found.end()
            if event is not None:
                events.append(event)
            found = _BLANK_LINE.search(rest, start)
        del rest[:start]
        self._searched = len(rest) if found is None else 0
        self._check_length()
        return events

    def _check_length(self) -> None:
        if len(self._rest) > LONGEST_EVENT_BYTES:
            raise EventTooLong(f"an event is longer than {LONGEST_EVENT_BYTES} bytes")


def _parse_plain(block: bytes) -> ServerEvent | None:
    """Parse one event whose lines end in LF, without its blank line. Nearly all have this two-line form."""
    head, separator, data = block.partition(b"\ndata: ")
    if separator and head.startswith(b"event: ") and b"\n" not in data and b"\n" not in head:
        return ServerEvent(head[7:].strip().decode("utf-8", "replace"), data, block + b"\n\n")
    return parse_block(block + b"\n\n")


def _may_grow(found: re.Match[bytes], buffer: bytearray) -> bool:
    """Whether a blank line at the buffer's end may be incomplete.

    CR LF CR may be CR LF CR LF whose last byte has not arrived; that LF must not count as part of the next event.
    """
    return found.end() == len(buffer) and found.group().endswith(b"\n\r")


def parse_block(raw: bytes) -> ServerEvent | None:
    """One event from the lines before its blank line."""
    name, data = "", []
    for line in _LINE_END.split(raw):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode("utf-8", "replace")
        elif line == b"data":  # a field without a colon is empty
            data.append(b"")
        elif line == b"event":
            name = ""
    return ServerEvent(name, b"\n".join(data), raw) if data else None


def encode_frame(event_type: str, data: bytes) -> bytes:
    """One frame as Pollux sends it. `data` is a single line."""
    return b"event: %b\ndata: %b\n\n" % (event_type.encode(), data)


def split_frames(frames: bytes) -> list[bytes]:
    """The single frames of a batch that Pollux made."""
    return [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]


def frame_data(frame: bytes) -> bytes:
    """The data of one frame that Pollux made."""
    return frame[frame.index(b"\ndata: ") + 7 : -2]
