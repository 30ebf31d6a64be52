"""A private Valkey (or Redis) server as a child process: the store of `embedded://[directory]`.

Any number of processes share one server on one directory, none of them is special, and each may die at any
instant. Two locks in the directory make that safe. Both are `flock`s, which the kernel frees with the last
descriptor of whoever held them, however it ended: there is nothing to clean up, and no pid to believe.

**server.lock: who writes the files.** Two servers on one directory would both append to one file and destroy
it. So whoever starts a server first takes this lock exclusively, lets the server inherit the descriptor, and
closes its own. From then on the lock *is* the server's life: held, there is one, whoever started it; free,
there is none, and whoever gets it may start one. Processes that start at the same instant, or notice a death
at the same instant, need no other agreement: one gets the lock, the others wait for the server to answer.

**sharers.lock: who needs the server.** Each process holds it shared, from *before* it first connects until
after it last did. On leaving it drops its share and then tries, without waiting, to get the lock exclusively:
that succeeds only for the last one out, which shuts the server down and waits until it is gone. Drop, then
try: of several that leave together, the last to try finds no share left. A process that arrives meanwhile
does not get its share, so it waits (nothing here blocks the event loop) and then starts a fresh server,
instead of connecting to one that is about to end.

What follows from it. After `kill -9` of every sharer the server goes on, and the next start adopts it: it
finds server.lock held and the server answering. Killed while shutting the server down, a process frees
sharers.lock with the job half done: the next one in shares a server that may end under it, and restarts it
like any dead one. A server that dies is restarted by whichever sharer looks first, at the same socket, and
clients see what they see of any Redis restart.

The socket's path depends on nothing but the user and the directory. It is in /tmp, because $XDG_RUNTIME_DIR
and $TMPDIR differ between a shell, a cron job and a service, which all must find the one server; and in no
deeper place, because a socket's path is limited to 107 bytes and a directory's is not.
"""

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from storage.embedded_binary import EmbeddedError, choose_binary, remember
from storage.embedded_process import EmbeddedServer, Start

__all__ = ["EmbeddedError", "EmbeddedServer", "default_directory", "embedded_server"]

log = logging.getLogger("pollux.store")

START_S = 30.0
"""How long a server may be silent at start. While it says that it loads its file, it is not silent."""
SHUT_DOWN_S = 20.0
"""It writes and syncs what is left, which is a matter of the disk. After that the server is left alone."""
POLL_S = 0.02
"""Between two looks at a lock or at a starting server."""
WATCH_S = 0.2
"""Between two looks of a sharer at whether the server lives: a few system calls."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""Before the second restart, doubled with each, and at most. The first is immediate."""
STEADY_S = 60.0
"""A server that lived this long has earned an immediate restart again."""

RUNTIME = Path("/tmp")  # noqa: S108  # the directory that we make in it is checked to be ours


def default_directory() -> Path:
    """Where this user's data belongs, by the rules of the platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pollux"
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The specification: a relative path in the variable is to be ignored.
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "pollux"


@asynccontextmanager
async def embedded_server(directory: Path) -> AsyncIterator[EmbeddedServer]:
    """Share the server on `directory`: it answers when this enters, started if there was none.

    While the context is open, a server that dies is restarted. Leaving it shuts the server down if nobody
    else shares it. Cancelled while doing so, it leaves the server to the next start: nothing is lost.

    Raises `EmbeddedError`, which says why it can't be had and what to do.
    """
    server = _locate(directory)
    share = await _take_share(server)
    try:
        # Checked before connecting: else somebody else's server could be there and read what we store.
        server.make_socket_directory()
        await _ensure_running(server)
        supervisor = asyncio.create_task(_supervise(server), name=f"supervise {server.directory}")
        try:
            yield server
        finally:
            supervisor.cancel()
            # Not `await supervisor`: its cancellation and ours must not be mistaken for each other.
            await asyncio.wait([supervisor])
    finally:
        os.close(share)
        await _leave(server)


def _locate(directory: Path) -> EmbeddedServer:
    try:
        directory = directory.expanduser().resolve()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise EmbeddedError(f"the store's directory {directory} can't be made: {error}") from error
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    return EmbeddedServer(directory, RUNTIME / f"pollux-{os.geteuid()}-{name}" / "server.sock")


def _try_lock(path: Path, operation: int) -> int | None:
    """Lock without waiting: the descriptor, whose closing unlocks, or `None` if others are in the way."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        hint = ": use a local disk" if error.errno in (errno.ENOLCK, errno.ENOTSUP) else ""
        raise EmbeddedError(f"{path} can't be opened and locked ({error}){hint}.") from error
    return descriptor


async def _pause(seconds: float) -> None:
    # Jitter, lest processes that compete for a lock stay in step.
    await asyncio.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311


async def _take_share(server: EmbeddedServer) -> int:
    """Return our share of sharers.lock, once nobody is shutting the server down."""
    deadline = time.monotonic() + START_S
    while (share := _try_lock(server.sharers_lock, fcntl.LOCK_SH)) is None:
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"somebody has been shutting down the server on {server.directory} for {START_S:.0f} s. "
                f"End the process that holds {server.sharers_lock}."
            )
        await _pause(POLL_S)
    return share


async def _ensure_running(server: EmbeddedServer) -> None:
    """Return as soon as the server answers, whoever started it; start it whenever nobody has.

    Raises `EmbeddedError` if the one that we started ended, or the one that there is stays silent.
    """
    started: Start | None = None
    deadline = time.monotonic() + START_S
    while True:
        lock = _try_lock(server.server_lock, fcntl.LOCK_EX)
        if lock is not None:
            try:
                if started is not None:
                    raise EmbeddedError(server.why_ended(started))
                started = await _start(server, lock)
            finally:
                # On success the server has its own copy, and with it the lock.
                os.close(lock)
        condition = await server.condition()
        if condition == "ready":
            if started is not None:
                remember(server.directory, started.binary.edition)
            return
        if condition == "loading":
            deadline = time.monotonic() + START_S
        elif time.monotonic() > deadline:
            raise EmbeddedError(server.why_silent())
        await _pause(POLL_S)


async def _start(server: EmbeddedServer, lock: int) -> Start:
    await _end_stray(server)
    binary = await choose_binary(server.directory)
    return server.spawn(binary, lock)


async def _end_stray(server: EmbeddedServer) -> None:
    """Shut down a server that answers at our socket although server.lock is free.

    It comes of deleting the directory under a server: the lock of the new directory is another file.
    """
    deadline = time.monotonic() + SHUT_DOWN_S
    while await server.condition() != "silent":
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the server of a deleted directory still has {server.socket_path}: end it.")
        await server.ask_to_end()
        await _pause(POLL_S)


async def _supervise(server: EmbeddedServer) -> None:
    """Restart the server whenever it is dead: the more often it dies, the later. Runs until cancelled."""
    delay = 0.0
    last_try = time.monotonic()
    while True:
        await _pause(WATCH_S + delay)
        try:
            lock = _try_lock(server.server_lock, fcntl.LOCK_EX)
            if lock is None:
                if time.monotonic() - last_try > STEADY_S:
                    delay = 0.0
                continue
            # Let go at once: `_ensure_running` competes for it like that of every other sharer.
            os.close(lock)
            last_try = time.monotonic()
            log.warning("the embedded server on %s died: restarting it", server.directory)
            await _ensure_running(server)
            log.info("the embedded server on %s runs again", server.directory)
        except EmbeddedError as error:
            log.error("the embedded server is down: %s", error)  # noqa: TRY400  # the message says it all
        except Exception:  # whatever it is: without this loop the store would stay dead
            log.exception("the embedded server on %s could not be restarted", server.directory)
        delay = min(max(2 * delay, FIRST_DELAY_S), LONGEST_DELAY_S)


async def _leave(server: EmbeddedServer) -> None:
    """After our share was dropped: shut the server down if nobody else has one."""
    last_out = _try_lock(server.sharers_lock, fcntl.LOCK_EX)
    if last_out is None:
        return
    try:
        await _shut_down(server)
    finally:
        os.close(last_out)


async def _shut_down(server: EmbeddedServer) -> None:
    """Return when the server is gone, or after `SHUT_DOWN_S`: then the next start adopts it."""
    deadline = time.monotonic() + SHUT_DOWN_S
    while (lock := _try_lock(server.server_lock, fcntl.LOCK_EX)) is None:
        if time.monotonic() > deadline:
            log.warning("the embedded server does not end and is left alone: %s", server.why_silent())
            return
        # Again and again, as it may still be starting, or refuse while it rewrites its file.
        await server.ask_to_end()
        await _pause(POLL_S)
    # Whoever arrives now waits for sharers.lock: nobody is about to connect there.
    server.remove_socket_directory()
    os.close(lock)
