"""Creates of unknown outcome: taken back when the store is there again, and never a reason to stop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from server.errors import PolluxError
from server.protocol.requests import parse_create
from server.responses.doubts import Doubts
from server.responses.submit import Submission, Submitter
from storage import NewResponse, Record, Store, StoreUnavailable
from tests.support.waiting import wait_until

RAW = b'{"model": "m", "input": "x", "background": true}'


class Away:
    """A store whose creates may have run, and that is away for deletes until told otherwise."""

    def __init__(self) -> None:
        self.back = False
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.asked = asyncio.Event()

    async def create(self, new: NewResponse) -> None:
        self.created.append(new.id)
        raise StoreUnavailable("no answer")

    async def delete(self, record: Record, _token: str) -> bool:
        back = self.back
        self.asked.set()
        await asyncio.sleep(0)
        if not back:
            raise StoreUnavailable("no answer")
        self.deleted.append(record.id)
        return True


async def test_doubts_are_settled_once_the_store_is_back_however_many_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.responses.doubts.MOST_DOUBTS", 3)
    away = Away()
    store = cast("Store", SimpleNamespace(responses=away, shards=1))
    doubts = Doubts(store)
    submitter = Submitter(store, doubts, "litellm_poll_", 60.0, 3600.0)

    async def create() -> None:
        with pytest.raises((StoreUnavailable, PolluxError)):
            await submitter.submit(parse_create(RAW), RAW, Submission("alice"))

    for _ in range(3):
        await create()
    settling = asyncio.create_task(doubts.settle())
    await away.asked.wait()
    await create()  # the oldest doubt is let run, in the very moment in which it is looked at
    away.back = True
    await wait_until(lambda: len(away.deleted) == 3 or settling.done(), what="the three that are remembered")
    assert not settling.done()
    assert sorted(away.deleted) == sorted(away.created[1:])
    settling.cancel()
    await asyncio.wait([settling])
