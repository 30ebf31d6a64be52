"""What it costs to speak another dialect: each translated event, and the process that may have to translate."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from server.protocol.dialects.manners import Dialect
from server.protocol.dialects.reply import Reply
from server.protocol.sse import ServerEvent, encode_frame
from tests.bench.stage import Stage, memory_bytes
from tests.support.dialects import block, chunk, message_end, message_start

Figures = dict[str, float]
EVENTS = 20_000
MODELS = ("mistral/mistral-large", "groq/llama-3", "gemini/gemini-2.5-pro", "anthropic/claude-sonnet-4-5")


def _streams() -> dict[Dialect, list[ServerEvent]]:
    word = {"type": "text_delta", "text": " word"}
    said = block(0, {"type": "text", "text": ""}, *[word] * EVENTS)
    return {
        Dialect.CHAT: _framed([*(chunk({"content": " word"}) for _ in range(EVENTS)), chunk({}, "stop")]),
        Dialect.MESSAGES: _framed([message_start(), *said, *message_end("end_turn")]),
    }


def _framed(events: list[dict[str, Any]]) -> list[ServerEvent]:
    data = [orjson.dumps(event) for event in events]
    return [ServerEvent("", one, encode_frame("message", one)) for one in data]


async def translated_events(_: Stage) -> Figures:
    """What an event costs more than one that is passed on as it came, in CPU of the process."""
    found = {}
    for dialect, events in _streams().items():
        reply = Reply(dialect, "resp_1", "0a", 1, frozenset())
        began = time.process_time()
        made = sum(len(reply.take(events[start : start + 16])) for start in range(0, len(events), 16))
        assert made >= EVENTS
        found[f"translated event, {dialect}: µs more"] = (time.process_time() - began) / EVENTS * 1e6
    return found


async def starting_with_dialects(stage: Stage) -> Figures:
    """What a process that serves such models takes more than one that serves none, while it does nothing."""
    taken = []
    for models in ((), MODELS):
        async with stage.pollux(models=models) as pollux:
            await asyncio.sleep(1)
            (pid,) = pollux.pids
            taken.append((pollux.ready_s, memory_bytes(pid) / 1e6))
    (plain_s, plain_mb), (ready_s, idle_mb) = taken
    return {"other dialects: start, s more": ready_s - plain_s, "other dialects: idle, MB more": idle_mb - plain_mb}
