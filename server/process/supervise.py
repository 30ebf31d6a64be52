"""Several worker processes on one port, kept alive by a parent that does nothing else.

Each child listens for itself (SO_REUSEPORT) and is a new program, not a fork, because a fork of a process with threads
or a running loop is not safe. Parent and child talk over a link. The child tells when it serves. The parent tells when
to leave, when to do so without grace, and when to hurry, and children wait for its word before they hurry: a signal
that reaches both, from a terminal or from systemd, counts only once. If the parent dies in any way, its children read
the end of the link, and leave. The parent alone reads the config, so that all children have the same.
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

from server.metrics import ReloadCounts, Shared, forget_levels, new_directory
from server.reload.control_socket import controlled
from server.reload.link import DRAIN, HURRY, LEAVE, Child, config_file, text_of
from server.reload.reload import Reloads, Report, Source, needing_a_restart, reload, warn_of
from server.reload.restart import carried_over
from server.system import signals
from server.system.sockets import bind

log = logging.getLogger("pollux.supervise")

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""The first restart is immediate. The second waits for the first delay, and each further one twice as long."""
STEADY_S = 10.0
"""After a child has lived this long, its next restart is immediate again."""
APPLIED_WITHIN_S = 10.0
"""How long a reload waits for children that start. What they were sent goes into effect when they have started."""
HURRIED_END_WITHIN_S = 15.0
"""A child that was told to hurry and has not ended after this time hangs, and is killed."""


async def supervise(command: Sequence[str], read: Callable[[], Source], host: str, port: int, count: int) -> int:
    """Keep `count` children running this command until SIGTERM or SIGINT. Returns the exit code: 1 if none could start.

    After a second signal the children no longer wait for their runs. They get their configs from here: the one that
    `read` gives now, and after SIGHUP or for `pollux reload` those that it gives then.

    Raises:
        ConfigError
        OSError: the address is taken

    """
    with reserved(host, port) as found, new_directory() as directory:
        parent = _Parent([*command, "--port", str(found)], count, read(), directory)
        reloads, counts = Reloads(), ReloadCounts.of_parent(directory)

        async def reload_all() -> Report:
            report = await reload(read, parent.apply)
            counts.config_reloaded(applied=report.applied)
            return report

        signals.hear(parent.on_signal)
        signals.hear_hangups(reloads.ask)
        log.info("starting %d processes on %s:%d", count, host, found)
        reloading = asyncio.create_task(reloads.run(reload_all), name="reloads")
        try:
            async with controlled(reloads):
                return await parent.run()
        finally:
            reloading.cancel()
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

    def __init__(self, command: Sequence[str], count: int, source: Source, directory: str | None = None) -> None:
        """`directory` is where the children share their metrics."""
        self._command = command
        self._count = count
        self._directory = directory
        self._config = source.config
        self._first = self._newest = config_file(source.merged.as_yaml())
        """Descriptors: of the config that was the first, and of that and the newest one. A child gets the latter."""
        self._children: dict[Child, asyncio.subprocess.Process | None] = {}
        """None: it is just being started, and gets all that it is told meanwhile."""
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

    async def apply(self, source: Source) -> Report:
        """Give the children another config, which is known to be valid. Those that start later get it too."""
        self._config, kept = carried_over(self._config, source.config)
        before, self._newest = self._newest, config_file(text_of(self._first), source.merged.as_yaml())
        if before != self._first:
            os.close(before)
        warn_of(source.config)
        told = {child: child.reload(self._newest) for child in self._children}
        if told:
            await asyncio.wait(told.values(), timeout=APPLIED_WITHIN_S)
        late = [child for child, applied in told.items() if not applied.done()]
        if any(child.serves for child in late):
            return Report(applied=False, told="a process has not answered")
        if late:
            log.info("processes that are starting will apply the config", extra={"count": len(late)})
        if not all(applied.result() for applied in told.values() if applied.done()):
            return Report(applied=False, told="a process could not apply what the others have, and has logged why")
        return needing_a_restart(kept)

    def _tell(self, word: bytes) -> None:
        for child in self._children:
            child.tell(word)

    def _kill(self) -> None:
        for process in self._children.values():
            with suppress(ProcessLookupError):
                if process is not None:
                    process.kill()

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
        child = Child(link)
        self._children[child] = None
        try:
            with theirs:
                child.send(self._newest)
                process = self._children[child] = await asyncio.create_subprocess_exec(
                    *(*self._command, "--supervised", str(theirs.fileno()), *place),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # So that a terminal's Ctrl-C reaches the parent alone.
                    start_new_session=True,
                )
            await child.listen(self._first_settled.set)
            return await process.wait()
        except OSError as error:
            log.error("no process can be started: %s", error)  # noqa: TRY400  # the message says it all
            return 1
        finally:
            link.close()
            del self._children[child]
            if shared:
                forget_levels(shared)
