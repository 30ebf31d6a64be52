"""Several worker processes on one port, kept alive by a parent that does nothing else.

Each child listens for itself (SO_REUSEPORT) and is a new program, not a fork, because a fork of a process with threads
or a running loop is not safe. Parent and child talk over a socket pair. The child tells when it serves. The parent
tells when to leave, when to do so without grace, and when to hurry, and children wait for its word before they hurry: a
signal that reaches both, from a terminal or from systemd, counts only once. If the parent dies in any way, its children
read the end of the link, and leave.
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

from server import signals
from server.metrics import Shared, forget_levels, new_directory
from server.sockets import bind

log = logging.getLogger("pollux.supervise")

SERVING, LEAVE, DRAIN, HURRY = b"s", b"l", b"d", b"h"
"""The messages on a link. The child sends the first, the parent the others."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""The first restart is immediate. The second waits for the first delay, and each further one twice as long."""
STEADY_S = 10.0
"""After a child has lived this long, its next restart is immediate again."""
HURRIED_END_WITHIN_S = 15.0
"""A child that was told to hurry and has not ended after this time hangs, and is killed."""


def say_that_nothing_is_reloaded() -> None:
    """Handle SIGHUP by a warning. Without a handler it would end the process, without a drain."""
    log.warning("SIGHUP is not heeded: the config is read once, at start. Restart to apply a change")


class Link:
    """The child's end of the socket pair."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def obey(self, leave: Callable[[], None], drain: Callable[[], None], hurry: Callable[[], None]) -> None:
        """Call these functions when the parent says so. `leave` is also called when the parent is gone."""
        asyncio.get_running_loop().add_reader(self._socket, self._read, leave, drain, hurry)

    def tell_serving(self) -> None:
        with suppress(OSError):  # the parent is gone: `_read` notices that
            self._socket.send(SERVING)

    def _read(self, leave: Callable[[], None], drain: Callable[[], None], hurry: Callable[[], None]) -> None:
        try:
            said = self._socket.recv(16)
        except ConnectionError:
            said = b""
        for word, act in ((LEAVE, leave), (DRAIN, drain), (HURRY, hurry)):
            if word in said:
                act()
        if not said:
            leave()
            asyncio.get_running_loop().remove_reader(self._socket)


async def supervise(command: Sequence[str], host: str, port: int, count: int) -> int:
    """Keep `count` children running this command until SIGTERM or SIGINT. Returns the exit code: 1 if none could start.

    After a second signal the children no longer wait for their runs.

    Raises:
        OSError: the address is taken

    """
    with reserved(host, port) as found, new_directory() as directory:
        parent = _Parent([*command, "--port", str(found)], count, directory)
        signals.hear(parent.on_signal)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, say_that_nothing_is_reloaded)
        log.info("starting %d processes on http://%s:%d", count, host, found)
        try:
            return await parent.run()
        finally:
            signals.ignore()


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Hold a port that children can share, without listening on it. Port 0 picks a free one.

    Raises:
        OSError: the port is taken

    """
    with ExitStack() as stack:
        for family, *_, address in socket.getaddrinfo(host or None, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE):
            # First without sharing, which fails if another Pollux has the port: we would take half of its requests.
            for share in (False, True):
                held = stack.enter_context(bind(family, (address[0], port, *address[2:]), share=share))
                port = held.getsockname()[1]
                if not share:
                    held.close()
        yield port


class _Parent:
    """The parent: starts the children, restarts them, and ends them."""

    def __init__(self, command: Sequence[str], count: int, directory: str | None = None) -> None:
        """`directory` is where the children share their metrics."""
        self._command = command
        self._count = count
        self._directory = directory
        self._children: dict[socket.socket, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()
        self._word = LEAVE
        """How the children are told to end."""
        self._first_settled = asyncio.Event()
        """Set once the first child serves, or once the whole server has to end."""
        self._failed = False

    async def run(self) -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(1), name="worker process 1")
            # The others wait for the first one, so that an error at the start is logged once and not by each of them.
            await self._first_settled.wait()
            for number in range(2, self._count + 1):
                group.create_task(self._keep(number), name=f"worker process {number}")
        log.info("all processes ended")
        return int(self._failed)

    def on_signal(self, number: signal.Signals) -> None:
        if self._ending.is_set():
            self._tell(HURRY)
            asyncio.get_running_loop().call_later(HURRIED_END_WITHIN_S, self._kill)
        else:
            self._end(LEAVE if number is signal.SIGTERM else DRAIN)

    def _end(self, word: bytes) -> None:
        self._word = word
        self._ending.set()
        self._tell(word)
        self._first_settled.set()

    def _tell(self, word: bytes) -> None:
        for link in self._children:
            with suppress(OSError):  # it is gone
                link.send(word)

    def _kill(self) -> None:
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.kill()

    async def _keep(self, number: int) -> None:
        """Keep one child running: whenever it ends, start another in its place, with its number."""
        delay = 0.0
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._run_child(number)
            if code > 0 and not self._first_settled.is_set():
                # The child has logged the reason. No child has ever served, so trying again would not help.
                log.error("the first process could not start")
                self._failed = True
                self._end(DRAIN)
            if self._ending.is_set():
                return
            if time.monotonic() - began > STEADY_S:
                delay = 0.0
            log.warning("a process ended with code %d, starting another in %.1f s", code, delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)
            delay = min(max(2 * delay, FIRST_DELAY_S), LONGEST_DELAY_S)

    async def _run_child(self, number: int) -> int:
        """Run one child until it ends. Returns its exit code; a negative one is the signal that killed it."""
        shared = Shared(self._directory, number) if self._directory else None
        place = ("--metrics-files", shared.directory, str(number)) if shared else ()
        link, theirs = socket.socketpair()
        with link:
            link.setblocking(False)
            with theirs:
                try:
                    child = await asyncio.create_subprocess_exec(
                        *(*self._command, "--supervised", str(theirs.fileno()), *place),
                        stdin=asyncio.subprocess.DEVNULL,
                        pass_fds=(theirs.fileno(),),
                        # So that a terminal's Ctrl-C reaches the parent alone.
                        start_new_session=True,
                    )
                except OSError as error:
                    log.error("no process can be started: %s", error)  # noqa: TRY400  # the message says it all
                    return 1
            self._children[link] = child
            if self._ending.is_set():  # set while the child was started
                self._tell(self._word)
            with suppress(ConnectionError):
                if await asyncio.get_running_loop().sock_recv(link, 1):
                    self._first_settled.set()
            code = await child.wait()
            if shared:
                forget_levels(shared)
            del self._children[link]
            return code
