"""One answer from the store for all readers that ask the same question at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class _Look(Generic[T]):
    """One question to the store, and its answer or error."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.answer: T | None = None
        self.error: BaseException | None = None


class Shared(Generic[T]):
    """Asks a question once for all callers that wait for it: a notification may wake hundreds of readers of a response.

    A caller joins only a question that has not been sent yet, so that no answer is older than the call. A caller that
    is cancelled does not disturb the others.
    """

    def __init__(self) -> None:
        self._asked: dict[Hashable, _Look[T]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def ask(self, about: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """Return or raise what `find` does, or the `find` of another caller that asks `about` the same."""
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
        except BaseException as error:  # noqa: BLE001 - the callers get it, even a cancellation at the end of the process
            look.error = error
        finally:
            look.over.set()
