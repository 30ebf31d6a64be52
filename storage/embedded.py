"""A private Valkey (or Redis) server as a child process: the store of `embedded://[directory]`.

Any number of processes share one server on one directory, none of them is special, and each may die at any
instant. Two locks in the directory make that safe. Both are `flock`s. The kernel frees a flock when the last
process that has its descriptor ends, however it ends, so there is nothing to clean up and no pid file to trust.

**server.lock tells whether a server is running.** Two servers on one directory would both append to one file and
destroy it. So a process that wants to start a server first takes this lock exclusively, lets the server inherit
the descriptor, and closes its own. From then on the lock is held exactly as long as the server lives. While it is
free there is no server, and the process that gets it may start one. If several processes start at once, or notice
at once that the server died, one gets the lock and the others wait until the new server answers.

**sharers.lock tells which processes need the server.** Each process holds it shared, from *before* its first
connection until after its last. When it leaves, it drops its share and then tries, without waiting, to get the
lock exclusively. Only the last process to leave gets it; that one shuts the server down and waits until it is gone.
The order matters: if several leave together, all have dropped their share before the last one tries. A process
that arrives during the shutdown can't get its share yet. It waits, without blocking the event loop, and then starts
a new server instead of connecting to one that is about to end.

Three consequences. After `kill -9` of all sharers the server goes on, and the next process to start adopts it,
because it finds server.lock held and the server answering. If a process is killed while it shuts the server down,
sharers.lock becomes free early; the next process may then see its server end, and restarts it like any dead one.
A server that dies is restarted by the first sharer that notices, at the same socket, and clients see what they see
of any Redis restart.

The socket's path depends only on the user and the directory. It is in /tmp, because $XDG_RUNTIME_DIR and $TMPDIR
differ between a shell, a cron job and a service, which must all find the same server. It is not in the store's
directory, because the path of a socket may not be longer than 107 bytes.
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
"""How long a server may give no answer when it starts. "I am still loading my file" counts as an answer."""
SHUT_DOWN_S = 20.0
"""How long we wait for the server to write and sync its data and end. After that it is left alone."""
POLL_S = 0.02
"""The pause between two looks at a lock, or at a starting server."""
WATCH_S = 0.2
"""The pause between two looks of a sharer at whether the server lives. A look costs a few system calls."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""The first restart is immediate. The second waits for the first delay, and each further one twice as long."""
STEADY_S = 60.0
"""After a server has lived this long, its next restart is immediate again."""

RUNTIME = Path("/tmp")  # noqa: S108  # `make_socket_directory` checks that the directory in it belongs to us


def default_directory() -> Path:
    """The directory for this user's data, by the rules of the platform.

    Raises:
        EmbeddedError: the user has no home, as one of a container that the system does not know

    """
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Application Support" / "pollux"
        # The XDG specification says that a relative path in the variable must be ignored.
        return (base if base.is_absolute() else Path.home() / ".local" / "share") / "pollux"
    except RuntimeError as error:
        raise EmbeddedError(
            "this user has no home directory: set HOME, or say where data is kept (embedded:///a/directory)"
        ) from error


@asynccontextmanager
async def embedded_server(directory: Path) -> AsyncIterator[EmbeddedServer]:
    """Share the server on `directory`, and start it if there is none. On entering, the server answers.

    While the context is open, a server that dies is restarted. On leaving, the server is shut down if no other
    process shares it. If the shutdown is cancelled, the server goes on, and the next start adopts it.

    Raises `EmbeddedError`, which says why there is no server and what to do.
    """
    server = _locate(directory)
    share = await _take_share(server)
    try:
        # Checked before connecting: otherwise another user could run a server there and read what we store.
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
    """Try to lock, without waiting. Returns the descriptor, which unlocks when closed, or `None` if others hold it."""
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
    # Jitter, so that processes which compete for a lock don't all try at the same instants.
    await asyncio.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311


async def _take_share(server: EmbeddedServer) -> int:
    """Take our share of sharers.lock. Waits while another process is shutting the server down."""
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
    """Return as soon as the server answers, whichever process started it. Start it if there is none.

    Raises `EmbeddedError` if the server that we started ended, or if the running one does not answer.
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
                # If the server was started, it has its own copy of the descriptor and keeps the lock.
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

    This happens when the directory was deleted while its server ran: the new directory has another lock file.
    """
    deadline = time.monotonic() + SHUT_DOWN_S
    while await server.condition() != "silent":
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the server of a deleted directory still has {server.socket_path}: end it.")
        await server.ask_to_end()
        await _pause(POLL_S)


async def _supervise(server: EmbeddedServer) -> None:
    """Restart the server whenever it dies, after a delay that grows if it keeps dying. Runs until cancelled."""
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
            # Free it at once: `_ensure_running` takes it again, in competition with the other sharers.
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
    """Shut the server down if no other process shares it. To be called after our own share was dropped."""
    last_out = _try_lock(server.sharers_lock, fcntl.LOCK_EX)
    if last_out is None:
        return
    try:
        await _shut_down(server)
    finally:
        os.close(last_out)


async def _shut_down(server: EmbeddedServer) -> None:
    """Return when the server is gone, or after `SHUT_DOWN_S`; a server that still runs is adopted by the next start."""
    deadline = time.monotonic() + SHUT_DOWN_S
    while (lock := _try_lock(server.server_lock, fcntl.LOCK_EX)) is None:
        if time.monotonic() > deadline:
            log.warning("the embedded server does not end and is left alone: %s", server.why_silent())
            return
        # Asked repeatedly, because a server refuses while it starts or rewrites its file.
        await server.ask_to_end()
        await _pause(POLL_S)
    # No process is about to connect here, because one that starts now waits for sharers.lock.
    server.remove_socket_directory()
    os.close(lock)
