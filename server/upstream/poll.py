"""Waiting on native responses: for each response one loop per process polls the provider, for all its waiters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from server.errors import Internal, PolluxError
from server.logs import unbind
from server.upstream.refusals import is_passing

log = logging.getLogger("pollux.upstream")

FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 1.0, 5.0, 1.3

Fetch = Callable[[], Awaitable[bytes]]


@dataclass
class _Poller:
    """One polled response: the newest body, or the error, that its waiters receive."""

    waiters: int = 0
    body: bytes | None = None
    error: PolluxError | None = None
    polled: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None


class Pollers:
    """All polled responses of this process."""

    def __init__(self) -> None:
        self._pollers: dict[str, _Poller] = {}
        self.draining = False

    @property
    def waiters(self) -> int:
        return sum(poller.waiters for poller in self._pollers.values())

    async def wait(self, key: str, fetch: Fetch, done: Callable[[bytes], bool], seconds: float) -> bytes | None:
        """Wait until a newly fetched body is `done`, and return it; when the time is over, return the newest body.

        None if nothing was fetched in that time. `key` identifies the response: waiters with the same key share a loop.

        Raises:
            PolluxError: the provider's error, unless it may pass

        """
        if self.draining:
            return None
        poller = self._pollers.get(key)
        if poller is None:
            poller = self._pollers[key] = _Poller()
            poller.task = asyncio.create_task(self._poll(poller, fetch), name="native poll")
        poller.waiters += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._next(poller, done)
        except TimeoutError:
            return poller.body
        finally:
            poller.waiters -= 1
            if poller.waiters == 0:
                self._stop(key, poller)

    async def _next(self, poller: _Poller, done: Callable[[bytes], bool]) -> bytes | None:
        async with poller.polled:
            while True:
                await poller.polled.wait()
                if poller.error is not None:
                    raise poller.error
                if self.draining or (poller.body is not None and done(poller.body)):
                    return poller.body

    async def _poll(self, poller: _Poller, fetch: Fetch) -> None:
        unbind("request_id")  # the request that began it may be over long before the others that wait
        pause_s = FIRST_PAUSE_S
        while poller.error is None:
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * GROWTH)
            try:
                poller.body = await fetch()
            except PolluxError as error:
                if is_passing(error):
                    continue  # a passing error: the waiters go on waiting, at most until their time is over
                poller.error = error
            except Exception:
                log.exception("native poll broke")
                poller.error = Internal()
            async with poller.polled:
                poller.polled.notify_all()

    def _stop(self, key: str, poller: _Poller) -> None:
        if poller.task is not None:
            poller.task.cancel()
        if self._pollers.get(key) is poller:
            del self._pollers[key]

    async def drain(self) -> None:
        """End all waits at once, each with the newest body it has."""
        self.draining = True
        for poller in list(self._pollers.values()):
            async with poller.polled:
                poller.polled.notify_all()
