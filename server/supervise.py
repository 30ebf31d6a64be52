"""Several worker processes on one port, kept alive by a parent that does nothing else.

Each child listens for itself (SO_REUSEPORT), and is started from nothing: no fork of a process that has threads or a
running loop. A socket pair joins parent and child, and says all that they have to say to each other. A child tells that
it serves. The parent tells when to drain and when to hurry; so a signal that reaches both, from a terminal or from
systemd, counts once. And if the parent dies, however it dies, its children read the end of the link, and drain.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from server.sockets import bind

log = logging.getLogger("pollux.supervise")

SERVING, DRAIN, HURRY = b"s", b"d", b"h"
"""What is said on a link: the first by the child, the others by the parent."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""Before the second restart, doubled with each, and at most. The first is immediate."""
STEADY_S = 10.0
"""A child that lived this long has earned an immediate restart again."""
HURRIED_END_WITHIN_S = 15.0
"""After that a child that was told to hurry is killed: it hangs."""


def say_that_nothing_is_reloaded() -> None:
    """The answer to SIGHUP, which would otherwise end the process without a drain."""
    log.warning("SIGHUP is not heeded: the config is read once, at start. Restart to apply a change")


class Link:
    """The child's end."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def obey(self, drain: Callable[[], None], hurry: Callable[[], None]) -> None:
        """Call these when the parent says so; the first also when it is gone."""
        asyncio.get_running_loop().add_reader(self._socket, self._read, drain, hurry)

    def tell_serving(self) -> None:
        with suppress(OSError):  # the parent is gone: we hear of that elsewhere
            self._socket.send(SERVING)

    def _read(self, drain: Callable[[], None], hurry: Callable[[], None]) -> None:
        try:
            said = self._socket.recv(16)
        except ConnectionError:
            said = b""
        drain()
        if HURRY in said:
            hurry()
        if not said:
            asyncio.get_running_loop().remove_reader(self._socket)


async def supervise(command: Sequence[str], host: str, port: int, count: int) -> int:
    """Keep `count` children of this command until SIGTERM or SIGINT; return the exit code, 1 if none could start.

    A second signal ends their patience.

    Raises:
        OSError: the address is taken

    """
    with reserved(host, port) as found:
        parent = _Parent([*command, "--port", str(found)], count)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, parent.on_signal)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, say_that_nothing_is_reloaded)
        log.info("starting %d processes on http://%s:%d", count, host, found)
        return await parent.run()


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Hold a port, for children to share, without listening; 0 picks one.

    Raises:
        OSError: it is taken

    """
    with ExitStack() as stack:
        for family, *_, address in socket.getaddrinfo(host or None, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE):
            # Without sharing first: else we would move in with another Pollux, and get half of its requests.
            for share in (False, True):
                held = stack.enter_context(bind(family, (address[0], port, *address[2:]), share=share))
                port = held.getsockname()[1]
                if not share:
                    held.close()
        yield port


class _Parent:
    """The children, and what was decided about them."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = command
        self._count = count
        self._children: dict[socket.socket, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()
        self._first_settled = asyncio.Event()
        """A child serves, or all is over."""
        self._failed = False

    async def run(self) -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(), name="worker process 1")
            # The first one alone: what can't start says why once, not once for each.
            await self._first_settled.wait()
            for number in range(2, self._count + 1):
                group.create_task(self._keep(), name=f"worker process {number}")
        log.info("all processes ended")
        return int(self._failed)

    def on_signal(self) -> None:
        if self._ending.is_set():
            self._tell(HURRY)
            asyncio.get_running_loop().call_later(HURRIED_END_WITHIN_S, self._kill)
        else:
            self._end()

    def _end(self) -> None:
        self._ending.set()
        self._tell(DRAIN)
        self._first_settled.set()

    def _tell(self, word: bytes) -> None:
        for link in self._children:
            with suppress(OSError):  # it is gone
                link.send(word)

    def _kill(self) -> None:
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.kill()

    async def _keep(self) -> None:
        """One child after the other, until the end."""
        delay = 0.0
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._run_child()
            if code > 0 and not self._first_settled.is_set():
                # It said why. Nothing of ours ever served, so it is no passing trouble.
                log.error("the first process could not start")
                self._failed = True
                self._end()
            if self._ending.is_set():
                return
            if time.monotonic() - began > STEADY_S:
                delay = 0.0
            log.warning("a process ended with code %d, starting another in %.1f s", code, delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)
            delay = min(max(2 * delay, FIRST_DELAY_S), LONGEST_DELAY_S)

    async def _run_child(self) -> int:
        """Start a child, and return its exit code when it has ended; negative is the signal that it died of."""
        link, theirs = socket.socketpair()
        with link:
            link.setblocking(False)
            with theirs:
                try:
                    child = await asyncio.create_subprocess_exec(
                        *(*self._command, "--supervised", str(theirs.fileno())),
                        stdin=asyncio.subprocess.DEVNULL,
                        pass_fds=(theirs.fileno(),),
                        # A terminal's Ctrl-C is for us alone.
                        start_new_session=True,
                    )
                except OSError as error:
                    log.error("no process can be started: %s", error)  # noqa: TRY400  # the message says it all
                    return 1
            self._children[link] = child
            if self._ending.is_set():  # meanwhile
                self._tell(DRAIN)
            with suppress(ConnectionError):
                if await asyncio.get_running_loop().sock_recv(link, 1):
                    self._first_settled.set()
            code = await child.wait()
            del self._children[link]
            return code
