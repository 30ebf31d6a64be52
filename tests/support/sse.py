"""Reading event streams in tests, strictly: what a frame of ours must look like is checked here, once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp


async def read_stream(answer: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """All events of a stream that ends cleanly."""
    return [event async for event in events_of(answer)]


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The events as they come. Raises `aiohttp.ClientPayloadError` when the stream is cut."""
    assert answer.status == 200, await answer.text()
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    try:
        async for block in _blocks(answer):
            yield _event(block)
    finally:
        answer.close()


async def _blocks(answer: aiohttp.ClientResponse) -> AsyncIterator[list[str]]:
    block: list[str] = []
    while line := (await answer.content.readline()).decode():
        if line.startswith(":"):
            continue
        if line != "\n":
            block.append(line)
            continue
        if block:
            yield block
        block = []
    assert not block, "the stream ended in the middle of a frame"


def _event(block: list[str]) -> dict[str, Any]:
    assert len(block) == 2, block
    assert block[0].startswith("event: ")
    assert block[1].startswith("data: ")
    event: dict[str, Any] = json.loads(block[1].removeprefix("data: "))
    assert block[0] == f"event: {event['type']}\n"
    return event
