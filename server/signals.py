"""The signals that end a process, heard from the first line of the program to its last.

A process that dies of SIGTERM looks to its supervisor like one that failed. Python leaves two gaps in which it would:
until the event loop listens, which takes a second of imports, and after the loop has closed, when the interpreter takes
itself down. The loop's own handlers cover neither, so these are handlers of the process, and outlive the loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)


def end_at_once() -> None:
    """Until there is something to drain, end with status 0. For the main thread, like all of these."""
    for number in ENDING:
        signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)  # an exception could be caught, or lost, by whatever module is being imported


def hear(tell: Callable[[signal.Signals], None]) -> None:
    """Call this function in the running event loop whenever one of the signals arrives."""
    loop = asyncio.get_running_loop()

    def heard(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell, signal.Signals(number))

    for number in ENDING:
        signal.signal(number, heard)


def ignore() -> None:
    """From now on the process ends by itself. To be called before the loop closes."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
