"""A private Valkey (or Redis) server as a child process: the store of `embedded://[directory]`.

Any number of processes share one server on one directory, none of them is special, and each may die at any
instant. Two locks in the directory make that safe. Both are `flock`s, which the kernel frees with the last
descriptor of whoever held them, however it ended: there is nothing to clean up and no pid to believe.

**server.lock: who writes the files.** Two servers on one directory would both append to one file and destroy it.
So whoever starts a server first takes this lock exclusively, lets the server inherit the descriptor, and closes
its own. From then on the lock *is* the server's life: held, there is one, whoever started it; free, there
is none, and whoever gets it may start one. Processes that start at the same instant, or notice a death at the same
instant, need no other agreement: one gets the lock, the others wait for the server to answer.

**sharers.lock: who needs the server.** Each process holds it shared from *before* it first connects
until after it last did. On leaving it drops its share and tries, without waiting, to get the lock exclusively:
that succeeds only for the last one out, which shuts the server down and waits until it is gone. Drop, then try:
of two that leave together, the one whose try comes last finds no other. A process that arrives
meanwhile does not get its share, so it waits (politely: nothing here blocks the event loop) and then starts a
fresh server, instead of connecting to one that is about to end.

What follows from it. After `kill -9` of every sharer the server goes on, and the next start adopts it: it finds
server.lock held and the server answering. Killed while shutting the server down, a process frees sharers.lock with
the job half done: the next one in shares a server that may end under it, and restarts it like any dead one.
A server that dies is restarted by whichever sharer looks first, at the same socket, and clients see what they
see of any Redis restart.

The socket's path depends on nothing but the user and the directory. It is in /tmp, as $XDG_RUNTIME_DIR and $TMPDIR
are not the same for a shell, a cron job and a service, which all must find the one server.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from storage.embedded_binary import Binary, EmbeddedError, choose_binary, remember, server_environment

__all__ = ["EmbeddedError", "EmbeddedServer", "default_directory", "embedded_server"]

log = logging.getLogger("pollux.store")

START_S = 30.0
"""How long a server may be silent at start; while it says that it loads its file, it is not silent."""
SHUT_DOWN_S = 20.0
"""Shutting down writes and syncs what is left, which is a matter of disk speed. Then the server is left alone."""
POLL_S = 0.02
"""Between two looks at a lock or at a starting server."""
WATCH_S = 0.2
"""Between two looks of a sharer at whether the server lives: two system calls."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""Before the second restart and at most; a server that lived for `STEADY_S` has earned an immediate one again."""
STEADY_S = 60.0
LOG_BYTES = 1 << 20
"""A start on a longer log moves it to server.log.1 first; between starts a server logs a few lines a day."""

RUNTIME = Path("/tmp")  # noqa: S108  # safe: a directory of our own in it, whose owner is checked

SETTINGS = {
    # Relative to the working directory, which is the data directory: its name needs no quoting.
    "dir": ".",
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "notify-keyspace-events": "Kgxe",
    "daemonize": "no",
    # To stdout, which is the log file: so it also gets what is said before the settings are read.
    "logfile": "",
    "always-show-logo": "no",
}


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server, as one of its sharers sees it."""

    directory: Path
    socket_path: Path
    """The same for a directory at all times: after a restart, clients just connect again."""

    @property
    def server_lock(self) -> Path:
        return self.directory / "server.lock"

    @property
    def sharers_lock(self) -> Path:
        return self.directory / "sharers.lock"

    @property
    def log_file(self) -> Path:
        return self.directory / "server.log"


@dataclass(frozen=True)
class _Start:
    """A server that this process started, to tell what became of it."""

    binary: Binary
    log_offset: int


def default_directory() -> Path:
    """Where this user's data belongs, by the rules of the platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pollux"
    # The specification: a relative path in it is to be ignored.
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "pollux"


@asynccontextmanager
async def embedded_server(directory: Path) -> AsyncIterator[EmbeddedServer]:
    """Share the server on `directory`, which answers when this enters; start it if there is none.

    While the context is open a server that dies is restarted. Leaving it shuts the server down if nobody else
    shares it. Cancelled while it shuts down, it leaves the server to the next start: nothing is lost.

    Raises:
        EmbeddedError: it can't be had, why, and what to do
    """
    server = _locate(directory)
    share = await _take_share(server)
    try:
        _make_socket_directory(server.socket_path.parent)
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


def _make_socket_directory(path: Path) -> None:
    """Make sure that nobody else can put a socket of theirs where we are going to connect."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise EmbeddedError(f"{path}, where the store's socket belongs, is not ours: have it removed.")
        if stat.S_IMODE(found.st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise EmbeddedError(f"{path}, where the store's socket belongs, can't be made: {error}") from error


def _try_lock(path: Path, operation: int) -> int | None:
    """Lock without waiting. Returns the descriptor, whose closing unlocks, or `None` if others are in the way."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        hint = " Use a local disk." if error.errno in (errno.ENOLCK, errno.ENOTSUP) else ""
        raise EmbeddedError(f"{path} can't be locked: {error}.{hint}") from error
    return descriptor


async def _pause(seconds: float) -> None:
    # Jitter, lest processes that wait for each other stay in step.
    await asyncio.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311


async def _take_share(server: EmbeddedServer) -> int:
    """Return our share of sharers.lock, when nobody is shutting the server down (any more)."""
    deadline = time.monotonic() + START_S
    while (share := _try_lock(server.sharers_lock, fcntl.LOCK_SH)) is None:
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"another process has been shutting down the server on {server.directory} for {START_S:.0f} s: "
                f"end the process that holds {server.sharers_lock}."
            )
        await _pause(POLL_S)
    return share


async def _ensure_running(server: EmbeddedServer) -> None:
    """Return as soon as the server answers, whoever started it; start it whenever nobody has.

    Raises:
        EmbeddedError: the one that we started ended, or the one there is stays silent
    """
    started: _Start | None = None
    deadline = time.monotonic() + START_S
    while True:
        lock = _try_lock(server.server_lock, fcntl.LOCK_EX)
        if lock is not None:
            try:
                if started is not None:
                    raise EmbeddedError(_obituary(server, started))
                started = await _start(server, lock)
            finally:
                os.close(lock)
        condition = await _condition(server)
        if condition == "ready":
            if started is not None:
                remember(server.directory, started.binary.edition)
            return
        if condition == "loading":
            deadline = time.monotonic() + START_S
        elif time.monotonic() > deadline:
            raise EmbeddedError(_complaint(server))
        await _pause(POLL_S)


async def _start(server: EmbeddedServer, lock: int) -> _Start:
    """Start a server that inherits `lock`, which we hold. The caller closes our copy of it in any case."""
    await _end_stray(server)
    binary = await choose_binary(server.directory)
    _make_socket_directory(server.socket_path.parent)
    try:
        # No await from here on, so it can't be cancelled half-way; it takes a few milliseconds, once.
        return _spawn(server, binary, lock)
    except OSError as error:
        raise EmbeddedError(f"{binary.path} can't be started on {server.directory}: {error}") from error


def _spawn(server: EmbeddedServer, binary: Binary, lock: int) -> _Start:
    if server.log_file.exists() and server.log_file.stat().st_size > LOG_BYTES:
        server.log_file.replace(server.log_file.with_suffix(".log.1"))
    command = [str(binary.path), "--unixsocket", str(server.socket_path)]
    for name, value in SETTINGS.items():
        command += [f"--{name}", value]
    with server.log_file.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=server.directory,
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock,),
            umask=0o077,
            # Ctrl-C goes to a whole process group: the store must outlive our drain.
            start_new_session=True,
        )
        started = _Start(binary, output.tell())
    # For people who look for the process, and for `_complaint`. No decision rests on it.
    os.truncate(lock, 0)
    os.pwrite(lock, f"{process.pid}\n".encode(), 0)
    # Reaps it the moment it ends. Not asyncio's child watcher: closing the loop would kill a server that others
    # still share.
    threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
    return started


async def _end_stray(server: EmbeddedServer) -> None:
    """Shut down a server that answers at our socket although server.lock is free.

    It comes of deleting the directory under a server: the lock of the new directory is another file.
    """
    deadline = time.monotonic() + SHUT_DOWN_S
    while await _condition(server) != "silent":
        if time.monotonic() > deadline:
            raise EmbeddedError(f"a server of a deleted directory keeps {server.socket_path}: end it.")
        await _ask_to_shut_down(server)
        await _pause(POLL_S)


async def _supervise(server: EmbeddedServer) -> None:
    """Restart the server whenever it is dead; the more often it dies, the later (up to `LONGEST_DELAY_S`)."""
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
            # Let go at once: `_ensure_running` competes for it on equal terms with the other sharers.
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
    """After dropping our share: shut the server down if nobody else has one."""
    last_out = _try_lock(server.sharers_lock, fcntl.LOCK_EX)
    if last_out is None:
        return
    try:
        await _shut_down(server)
    finally:
        os.close(last_out)


async def _shut_down(server: EmbeddedServer) -> None:
    """Return when the server is gone. It writes and syncs all that it acknowledged before it ends."""
    deadline = time.monotonic() + SHUT_DOWN_S
    while (lock := _try_lock(server.server_lock, fcntl.LOCK_EX)) is None:
        if time.monotonic() > deadline:
            log.warning("the embedded server does not end, it is left alone: %s", _complaint(server))
            return
        # Again and again, as it may still be starting, or refuse while it rewrites its file.
        await _ask_to_shut_down(server)
        await _pause(POLL_S)
    # Those who arrive now wait for sharers.lock, so nobody connects while this removes the place.
    with suppress(OSError):
        server.socket_path.unlink(missing_ok=True)
        server.socket_path.parent.rmdir()
    os.close(lock)


def _client(server: EmbeddedServer) -> Redis:
    # No retries: the callers' loops repeat what matters.
    return Redis(
        unix_socket_path=str(server.socket_path),
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
    )


async def _condition(server: EmbeddedServer) -> Literal["ready", "loading", "silent"]:
    try:
        async with _client(server) as client:
            await client.ping()
    except BusyLoadingError:
        return "loading"
    except (RedisError, OSError):
        return "silent"
    return "ready"


async def _ask_to_shut_down(server: EmbeddedServer) -> None:
    """One try; what came of it shows at the lock.

    Plain SHUTDOWN, without NOSAVE or FORCE: with an append-only file it flushes and syncs it, and refuses to end
    when it can't.
    """
    with suppress(RedisError, OSError):
        async with _client(server) as client:
            await client.shutdown()


def _obituary(server: EmbeddedServer, started: _Start) -> str:
    return (
        f"{started.binary.path} ({started.binary.edition}) does not run on {server.directory}. "
        f"Its log ({server.log_file}) ends:\n{_log_tail(server, started.log_offset)}"
    )


def _complaint(server: EmbeddedServer) -> str:
    with suppress(OSError):
        pid = server.server_lock.read_text().strip()
    return (
        f"the server on {server.directory} (process {pid or 'unknown'}) does not answer at {server.socket_path}. If its socket was "
        f"deleted, or the directory moved, end that process and start again. Its log ({server.log_file}) ends:\n"
        f"{_log_tail(server, 0)}"
    )


def _log_tail(server: EmbeddedServer, offset: int) -> str:
    """The last lines that the log got since `offset`, bounded for a message."""
    try:
        with server.log_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(offset, size - 2000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"(unreadable: {error})"
    return "\n".join(f"  {line}" for line in lines[-8:]) or "  (empty)"
