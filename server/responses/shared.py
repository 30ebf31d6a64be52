"""One answer for all who ask the same thing at the same instant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class _Look(Generic[T]):
    """One look, and what came of it."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None


class Shared(Generic[T]):
    """Questions that are put once, however many ask: a notification wakes hundreds of readers of one response.

    Only those share an answer who ask before it is looked for: nobody gets what is older than his question. Who gives
    up takes nothing from the others.
    """

    def __init__(self) -> None:
        self._asked: dict[Hashable, _Look[T]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def ask(self, about: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """What `find` returns, or raises: ours, or that of somebody who asks about the same."""
        look = self._asked.get(about)
        if look is None:
            look = self._asked[about] = _Look()
            task = asyncio.create_task(self._look(about, look, find), name="shared look")
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
        await look.over.wait()
        if look.error is not None:
            raise look.error
        return cast("T", look.answer)

    async def _look(self, about: Hashable, look: _Look[T], find: Callable[[], Awaitable[T]]) -> None:
        del self._asked[about]
        try:
            look.answer = await find()
        except BaseException as error:  # noqa: BLE001 - theirs who asked, a cancellation at the end of the process too
            look.error = error
        finally:
            look.over.set()
