"""The signals that end a process, and SIGHUP, heard from the first line of the program to its last.

By default SIGHUP ends a process too. And a process that dies of SIGTERM looks to its supervisor like one that failed.
Python leaves two gaps in which it would: until the event loop listens, which takes a second of imports, and after the
loop has closed, when the interpreter takes itself down. The loop's own handlers cover neither, so these are handlers of
the process, and outlive the loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

STARTED_AT = time.monotonic()
"""When the program began: this module is the first of it."""
ENDING = (signal.SIGTERM, signal.SIGINT)
_HUNG_UP = threading.Event()
"""Set while a SIGHUP has come that nobody could be told of yet."""


def end_at_once() -> None:
    """Until there is something to drain, end with status 0. For the main thread, like all of these."""
    for number in ENDING:
        signal.signal(number, _end)
    signal.signal(signal.SIGHUP, lambda _number, _frame: _HUNG_UP.set())


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)  # an exception could be caught, or lost, by whatever module is being imported


def hear(tell: Callable[[signal.Signals], None]) -> None:
    """Call this function in the running event loop whenever one of the signals arrives."""
    loop = asyncio.get_running_loop()

    def heard(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell, signal.Signals(number))

    for number in ENDING:
        signal.signal(number, heard)


def hear_hangups(tell: Callable[[], None]) -> None:
    """Call this function in the running event loop whenever SIGHUP arrives, and now if one has come before."""
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, lambda _number, _frame: loop.call_soon_threadsafe(tell))
    if _HUNG_UP.is_set():
        _HUNG_UP.clear()
        tell()


def ignore_hangups() -> None:
    """SIGHUP is for another process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def ignore() -> None:
    """From now on the process ends by itself. To be called before the loop closes."""
    for number in (*ENDING, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
