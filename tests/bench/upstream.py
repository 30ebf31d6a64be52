"""A provider that is never the bottleneck: HTTP by hand on a bare protocol, frames made once.

    python -m tests.bench.upstream PORT

The request's `input` says what to answer: `events=500 rate=50 size=6` is so many deltas, so many a second (0: as fast
as they are taken), each so long; with `hold=1` nothing follows them, and the stream stays open. Without `stream` it
answers at once with a JSON of `bytes=1500`. Each response tells in its `metadata.sent_at` when its last byte was
written, by the clock that all processes of the machine share.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import orjson
import uvloop

TICK_S = 0.002
BURST_BYTES = 64 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
WORDS = [" the", " quick", " brown", " fox", " jumps", " over", " a", " lazy", " dog", " again", ",", " and"]


def plan_of(text: str) -> dict[str, int]:
    """`events=500 rate=50` as numbers; other words are passed over."""
    pairs = (word.partition("=") for word in text.split())
    return {name: int(value) for name, equals, value in pairs if equals and value.isdigit()}


def frame(kind: str, number: int, **fields: Any) -> bytes:
    data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class Turn:
    """One answer: its frames in order."""

    made = 0

    def __init__(self, request: dict[str, Any]) -> None:
        Turn.made += 1
        self.plan = plan_of(str(request.get("input", "")))
        self.id = f"resp_{Turn.made:08d}{'c4b1' * 10}"
        self.holds = bool(self.plan.get("hold"))
        self._model = request["model"]
        self._item = f"msg_{Turn.made:08d}{'9f3e' * 10}"

    def response(self, status: str, text: str | None = None) -> dict[str, Any]:
        item = {"id": self._item, "type": "message", "role": "assistant", "status": "completed"}
        part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {
            "id": self.id,
            "object": "response",
            "created_at": 1_769_579_421,
            "status": status,
            "model": self._model,
            "output": [] if text is None else [{**item, "content": [part]}],
            "usage": {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30},
            "metadata": {"sent_at": f"{time.monotonic():.6f}"},
            "tools": [],
        }

    def frames(self) -> Iterator[bytes]:
        yield frame("response.created", 0, response=self.response("in_progress"))
        item = {"id": self._item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        yield frame("response.output_item.added", 1, output_index=0, item=item)
        where = {"item_id": self._item, "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield frame("response.content_part.added", 2, **where, part=part)
        spoken, count = [], self.plan.get("events", 100)
        head, tail = frame(
            "response.output_text.delta", 0, **where, delta="*", logprobs=[], obfuscation="kX3vQ2pLmZ"
        ).split(b'"sequence_number":0')
        before, after = tail.split(b'"*"')
        for n in range(count):
            word = WORDS[n % len(WORDS)] * max(1, self.plan.get("size", 1))
            spoken.append(word)
            yield b'%b"sequence_number":%d%b"%b"%b' % (head, n + 3, before, word.encode(), after)
        if self.holds:
            return
        text = "".join(spoken)
        yield frame("response.output_text.done", count + 3, **where, text=text, logprobs=[])
        yield frame(
            "response.output_item.done", count + 4, output_index=0, item=self.response("completed", text)["output"][0]
        )
        yield frame("response.completed", count + 5, response=self.response("completed", text))


class Paced:
    """Writes one frame of each stream whenever it is due: streams of one rate are spread over its interval."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, int], list[tuple[Connection, Turn, Iterator[bytes]]]] = {}
        self._next: dict[int, int] = {}
        self._ticks = 0

    def add(self, connection: Connection, turn: Turn, rate: int) -> None:
        period = max(1, round(1 / rate / TICK_S))
        slot = self._next.get(period, 0)
        self._next[period] = (slot + 1) % period
        self._slots.setdefault((period, slot), []).append((connection, turn, turn.frames()))

    async def run(self) -> None:
        began = time.monotonic()
        while True:
            self._ticks += 1
            await asyncio.sleep(max(0.0, began + self._ticks * TICK_S - time.monotonic()))
            for (period, slot), streams in self._slots.items():
                if self._ticks % period == slot and streams:
                    self._slots[period, slot] = [one for one in streams if self._step(*one)]

    def _step(self, connection: Connection, turn: Turn, frames: Iterator[bytes]) -> bool:
        if connection.closed:
            return False
        one = next(frames, None)
        if one is not None or not turn.holds:
            connection.send_chunk(one or b"")
        return one is not None


PACED = Paced()


class Connection(asyncio.Protocol):
    """Speaks as much HTTP/1.1 as a client of ours does: one request after the other, with a length."""

    def __init__(self) -> None:
        self._buffer = b""
        self.closed = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._answer(orjson.loads(rest[:length]))

    def _answer(self, request: dict[str, Any]) -> None:
        turn = Turn(request)
        if request.get("stream") is not True:
            body = orjson.dumps(turn.response("completed", "x" * turn.plan.get("bytes", 1000)))
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            return
        self._transport.write(HEAD)
        rate = turn.plan.get("rate", 0)
        if rate:
            PACED.add(self, turn, rate)
        else:
            self._task = asyncio.create_task(self._burst(turn))

    async def _burst(self, turn: Turn) -> None:
        gathered, size = [], 0
        for one in turn.frames():
            gathered.append(one)
            size += len(one)
            if size > BURST_BYTES:
                self.send_chunk(b"".join(gathered))
                gathered, size = [], 0
                await self._writable.wait()
                await asyncio.sleep(0)
        if gathered:
            self.send_chunk(b"".join(gathered))
        if not turn.holds:
            self.send_chunk(b"")

    def send_chunk(self, data: bytes) -> None:
        """A chunk; an empty one is the end."""
        if not self.closed:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(Connection, "127.0.0.1", port, backlog=4096)
    await PACED.run()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
