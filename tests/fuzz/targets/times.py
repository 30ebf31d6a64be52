"""Time: eight times as much of anything takes about eight times as long, not sixty-four.

Whoever reads what strangers send holds up all others meanwhile, since they share one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

from server.errors import PolluxError
from server.outbox.addresses import NotAllowed, check_url
from server.protocol.events import MalformedEvent, parse_event, renumber
from server.protocol.ids import decode_composite, foreign_form
from server.protocol.marks import parse_marked
from server.protocol.reasons import pause_in, reason_of
from server.protocol.redaction import Secrets, shown_tools
from server.protocol.requests import parse_create
from server.protocol.sse import SseParser
from server.upstream.affinity import Marker
from server.upstream.answer import Answer
from server.upstream.refusals import _pause_asked_by
from server.upstream.rewrite import Rewriter
from tests.fuzz.material import Material
from tests.support.deployments import deployment

SMALL_BYTES, FACTOR = 8 * 1024, 8
SOON_S = 0.02
"""Whatever takes no longer for the larger input is quick enough, however it grows."""
MOST_GROWTH = 4 * FACTOR
"""Between `FACTOR`, and its square. A machine under load is no defect."""
_PIECES = (
    *(b"<", b"<title", b">", b"<script ", b"data: ", b"\n", b"\r", b"\n\n", b'"', b"\\", b"{", b"[", b'"id":"'),
    *(b'"a":',),
    *(b'"sequence_number":', b"5", b" ", b"x", b"_", b"-", b"resp_", b"sk-", b"Bearer ", b"\xff", b",", b";owner:"),
    *(b"=",),
    *(b"try again in ", b"9", b".", b"1m", b"https://", b"@", b":", b"%", b"\\u0061", b'"response_id":"', b"\t"),
    *(b"&amp;",),
)


def fuzz(data: bytes) -> None:
    material = Material(data)
    name = material.pick(tuple(READERS))
    head, unit, tail = (b"".join(material.pick(_PIECES) for _ in material.times(3)) for _ in range(3))
    if unit:
        is_in_proportion(READERS[name], head, unit, tail)


def is_in_proportion(read: Callable[[bytes], object], head: bytes, unit: bytes, tail: bytes) -> None:
    """Time both sizes, and once more if the larger one took too long: something else may have been in the way."""
    count = SMALL_BYTES // len(unit)
    for attempt in range(3):
        larger_s = _seconds(read, head + unit * count * FACTOR + tail)
        if larger_s < SOON_S:
            return
        smaller_s = _seconds(read, head + unit * count + tail)
        if larger_s < smaller_s * MOST_GROWTH:
            return
        assert attempt < 2, f"{head!r} + {unit!r} * n + {tail!r}: {smaller_s:.4f} s, then {larger_s:.4f} s"


def _seconds(read: Callable[[bytes], object], raw: bytes) -> float:
    start = time.thread_time()
    read(raw)
    return time.thread_time() - start


def _stream(raw: bytes) -> None:
    parser = SseParser()
    for place in range(0, len(raw), 64):
        parser.feed(raw[place : place + 64])


def _event(raw: bytes) -> None:
    with suppress(MalformedEvent):
        renumber(parse_event("response.x", raw), 5)


def _rewriter() -> Rewriter:
    return Rewriter(deployment("d"), Marker("d", "alice", b"s" * 32))


def _answer(raw: bytes) -> None:
    with suppress(PolluxError):
        _rewriter().json(raw)


def _request(raw: bytes) -> None:
    with suppress(PolluxError):
        Secrets(parse_create(raw).body)


def _tool(raw: bytes) -> None:
    text = raw.decode("latin-1")
    shown_tools([{"type": "mcp", "server_url": text, text: "x"}])
    Secrets({"tools": [{"server_url": text, text: "x"}]})


def _text(raw: bytes) -> None:
    text = raw.decode("latin-1")
    decode_composite(text)
    foreign_form(text)
    parse_marked(text)
    pause_in(text)
    with suppress(NotAllowed):
        check_url(text, private=True)


def _pause(raw: bytes) -> None:
    # aiohttp takes no longer header.
    headers: Any = {"Retry-After": raw.decode("latin-1")[:8190]}
    _pause_asked_by(cast("Answer", SimpleNamespace(headers=headers)), {})


READERS: dict[str, Callable[[bytes], object]] = {
    "stream": _stream,
    "event": _event,
    "answer": _answer,
    "request": _request,
    "tool": _tool,
    "text": _text,
    "page": reason_of,
    "pause": _pause,
}
