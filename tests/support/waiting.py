"""Waiting for something to become true, instead of sleeping and hoping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

STEP_S = 0.02


async def wait_until(
    predicate: Callable[[], object] | Callable[[], Awaitable[object]],
    *,
    timeout_s: float = 20.0,
    what: str = "",
) -> None:
    """Return as soon as `predicate()`, which may be a coroutine function, is true.

    Raises `AssertionError` when it still is not after `timeout_s`. Errors of the predicate are not hidden.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or predicate}")
        await asyncio.sleep(STEP_S)
