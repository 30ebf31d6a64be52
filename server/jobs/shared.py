"""One answer for all who ask the same thing at the same instant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Questions that are put once, however many ask: a notification wakes hundreds of readers of one response.

    Only those share an answer who ask before it is looked for: nobody gets what is older than his question.
    """

    def __init__(self) -> None:
        self._asked: dict[Hashable, asyncio.Task[T]] = {}
        self._running: set[asyncio.Task[T]] = set()

    async def ask(self, about: Hashable, look: Callable[[], Awaitable[T]]) -> T:
        """What `look` returns, or raises: ours, or that of somebody who asks about the same."""
        task = self._asked.get(about)
        if task is None:
            task = self._asked[about] = asyncio.create_task(self._look(about, look), name="shared look")
            self._running.add(task)
            task.add_done_callback(self._done)
        # Who gives up does not take the answer from the others.
        return await asyncio.shield(task)

    async def _look(self, about: Hashable, look: Callable[[], Awaitable[T]]) -> T:
        del self._asked[about]
        return await look()

    def _done(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, though everybody may have given up
