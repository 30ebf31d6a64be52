"""Looking up the names of webhooks' hosts, in threads of its own.

A client may name a host whose name server never answers. In the threads of the event loop, a few such look-ups would
hold up all others of the process, those of providers and of the store among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]


class Names:
    """Looks names up, `most` at once: one that is not waited for any longer counts until the system gives it up."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)

    async def look_up(self, host: str, port: int, *, family: int = 0, flags: int = 0) -> list[AddressInfo]:
        """The addresses of a host.

        Raises:
            OSError: it has none, or too many look-ups are under way
            UnicodeError: it can't be a name
        """
        if not self._free.acquire(blocking=False):
            raise OSError("too many look-ups of names are under way")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[AddressInfo]] = loop.create_future()

        def tell(settle: Callable[[Any], None], outcome: Any) -> None:
            if not found.done():
                settle(outcome)

        def work() -> None:
            try:
                told = (found.set_result, socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags))
            except (OSError, UnicodeError) as error:
                told = (found.set_exception, error)  # type: ignore[assignment]
            finally:
                self._free.release()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, *told)

        # A daemon, so that the process can end meanwhile. An executor would wait for it.
        try:
            threading.Thread(target=work, name="look-up", daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise OSError("no thread is left to look up a name in") from error
        return await found


class Resolver(AbstractResolver):
    """For a connector."""

    def __init__(self, most: int) -> None:
        self._names = Names(most)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._names.look_up(host, port, family=family, flags=socket.AI_ADDRCONFIG)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol, flags=numeric
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        pass
