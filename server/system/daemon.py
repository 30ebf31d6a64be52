"""Work in a thread that no end of the process waits for: what hangs in it, such as a read of a dead disk, dies with it.

The threads of `asyncio.to_thread` are joined at the end, so one that hangs keeps the process for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon(work: Callable[[], T], name: str, within_s: float) -> T:
    """Return or raise what the work does. Work that takes longer goes on, and is lost.

    Raises:
        TimeoutError

    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(error: BaseException | None, *result: T) -> None:
        if done.done():
            return  # nobody waits any more
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(*result)

    def run() -> None:
        try:
            told = (None, work())
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            told = (error,)  # type: ignore[assignment]
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *told)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(within_s):
        return await done
