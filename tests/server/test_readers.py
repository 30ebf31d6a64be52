"""What readers of one process share: no one gets what is older than his question, and none sees two states as one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import orjson

from server.responses.shared import Shared
from server.responses.tails import Tails
from server.responses.view import Views
from storage import Batch, Cursor, Reading, Record, Store

ID = "litellm_poll_x"


def event(number: int) -> bytes:
    """The frame of one event: after the opening, an item and then its text, word by word."""
    if number < 2:
        return b"event: response.created\ndata: {}\n\n"
    where = {"sequence_number": number, "output_index": 0, "content_index": 0}
    if number == 2:
        made = {"type": "response.output_item.added", **where, "item": {"type": "message", "id": "m", "content": []}}
    else:
        made = {"type": "response.output_text.delta", **where, "delta": f" w{number}"}
    return b"event: %b\ndata: %b\n\n" % (str(made["type"]).encode(), orjson.dumps(made))


class Log:
    """The reading side of a store that has one response. Each answer waits until it is let go, if asked to."""

    def __init__(self) -> None:
        self.batches = [Batch(Cursor(1, 1), event(0) + event(1))]
        self.held: list[asyncio.Event] | None = None

    def grow(self, last: int) -> None:
        first = self.batches[-1].cursor.last + 1
        self.batches.append(Batch(Cursor(1, last), b"".join(event(n) for n in range(first, last + 1))))

    async def read_log(self, _id: str, after: Cursor) -> Reading:
        return self._reading(after)

    async def read(self, _id: str, after: Cursor, *, request: bool = True) -> Reading:
        reading = self._reading(after, b'{"model": "m"}' if request else b"")
        if self.held is not None:
            self.held.append(asyncio.Event())
            await self.held[-1].wait()
        return reading

    def _reading(self, after: Cursor, request: bytes = b"") -> Reading:
        record = Record(ID, "alice", "in_progress", "m", 1, True, self.batches[-1].cursor)
        return Reading(record, request, batches=tuple(b for b in self.batches if b.cursor > after))


def store_of(log: Log) -> Store:
    return cast("Store", SimpleNamespace(responses=log))


async def test_a_follower_is_never_told_that_nothing_has_come_by_a_look_at_another_tail() -> None:
    log = Log()
    tails = Tails(store_of(log))
    log.grow(5)
    await tails.read_log(ID, Cursor(1, 5))  # the tail begins at 5
    log.grow(8)
    early = asyncio.create_task(tails.read_log(ID, Cursor(1, 5)))
    late = asyncio.create_task(tails.read_log(ID, Cursor(1, 1)))  # lies before the tail, and makes another one
    await asyncio.sleep(0)
    readings = [await early, await late, await tails.read_log(ID, Cursor(1, 5))]
    for reading in readings:
        assert reading is not None
        assert reading.reaches_end
        assert reading.batches[-1].cursor == Cursor(1, 8)


async def test_a_tail_that_the_store_has_lost_is_not_served() -> None:
    log = Log()
    tails = Tails(store_of(log))
    log.grow(5)
    await tails.read_log(ID, Cursor(1, 1))
    log.grow(8)
    await tails.read_log(ID, Cursor(1, 5))
    del log.batches[-1]  # a failover
    reading = await tails.read_log(ID, Cursor(1, 5))
    assert reading is not None
    assert (reading.batches, reading.record.cursor) == ((), Cursor(1, 5))


async def test_answers_that_overtake_each_other_never_give_one_etag_two_bodies() -> None:
    log = Log()
    log.grow(4)
    views = Views(store_of(log))
    await views.view(ID)
    log.held = []
    log.grow(8)
    older = asyncio.create_task(views.view(ID))
    await until(lambda: len(log.held or ()) == 1)
    log.grow(12)
    newer = asyncio.create_task(views.view(ID))
    await until(lambda: len(log.held or ()) == 2)
    held, log.held = log.held, None
    held[1].set()
    await newer
    held[0].set()
    seen = {await older, await newer}
    assert {view.etag for view in seen if view} == {'"1.12"'}
    assert all(view is not None and b"w12" in view.body for view in seen)


async def test_a_fold_that_the_store_has_lost_is_made_anew() -> None:
    log = Log()
    log.grow(4)
    views = Views(store_of(log))
    log.grow(8)
    await views.view(ID)
    del log.batches[-1]
    view = await views.view(ID)
    assert view is not None
    assert (view.etag, b"w4" in view.body, b"w8" in view.body) == ('"1.4"', True, False)


async def test_one_look_answers_all_who_asked_before_it_began_and_none_who_asked_later() -> None:
    shared: Shared[int] = Shared()
    looks = 0

    async def look() -> int:
        nonlocal looks
        looks += 1
        mine = looks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return mine

    crowd = [asyncio.create_task(shared.ask("x", look)) for _ in range(5)]
    await until(lambda: looks == 1)
    late = asyncio.create_task(shared.ask("x", look))
    crowd[0].cancel()
    assert [await one for one in crowd[1:]] == [1] * 4
    assert await late == 2


async def until(condition: Any) -> None:
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(condition)
