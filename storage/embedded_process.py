"""One server process on one directory: start it, ask for its condition, ask it to end, read its log.

`storage.embedded` decides which process may do which of these, and when.
"""

import asyncio
import os
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from storage.embedded_binary import Binary, EmbeddedError, server_environment

LOG_BYTES = 1 << 20
"""If the log is longer when a server starts, it is moved to server.log.1. A running server logs a few lines a day."""
TAIL_BYTES, TAIL_LINES = 2000, 8
"""How much of the log an error message quotes: the last lines tell the reason."""
ANSWER_S = 1.0

SETTINGS = {
    # The server is started in its data directory, so that the name of that directory needs no quoting here.
    "dir": ".",
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "notify-keyspace-events": "Kgxe",
    "daemonize": "no",
    # Empty means stdout, which we redirect to the log file: it then also gets what is logged before settings are read.
    "logfile": "",
    "always-show-logo": "no",
}


@dataclass(frozen=True)
class Start:
    """A server that this process started, and where its part of the log begins."""

    binary: Binary
    log_offset: int


@dataclass(frozen=True)
class EmbeddedServer:
    """The server of a directory, whichever process started it. Users of the store need only `socket_path`."""

    directory: Path
    socket_path: Path
    """It never changes for a directory, so that clients simply connect again after a restart."""

    @property
    def server_lock(self) -> Path:
        return self.directory / "server.lock"

    @property
    def sharers_lock(self) -> Path:
        return self.directory / "sharers.lock"

    @property
    def log_file(self) -> Path:
        return self.directory / "server.log"

    def make_socket_directory(self) -> None:
        """Make the socket's directory accessible to us alone, so that no other user can put a socket there.

        Raises `EmbeddedError` if the path already belongs to another user.
        """
        path = self.socket_path.parent
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise EmbeddedError(f"{path}, the place of the store's socket, is not ours: have it removed.")
            if stat.S_IMODE(found.st_mode) != 0o700:
                path.chmod(0o700)
        except OSError as error:
            raise EmbeddedError(f"{path}, the place of the store's socket, can't be made: {error}") from error

    def remove_socket_directory(self) -> None:
        with suppress(OSError):
            self.socket_path.unlink(missing_ok=True)
            self.socket_path.parent.rmdir()

    def spawn(self, binary: Binary, lock: int) -> Start:
        """Start a server that inherits the descriptor `lock`.

        Blocks for a few milliseconds, so that no cancellation can come after the start but before we know of it.
        Raises `EmbeddedError` if the program can't be run. Whether the server goes on running shows later.
        """
        self.make_socket_directory()
        try:
            if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES:
                self.log_file.replace(self.directory / "server.log.1")
            with self.log_file.open("ab") as output:
                start = Start(binary, output.tell())
                process = subprocess.Popen(
                    [binary.path, "--unixsocket", self.socket_path, *_arguments()],
                    cwd=self.directory,
                    env=server_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lock,),
                    umask=0o077,
                    # Ctrl-C goes to the whole process group, and would end the store before our drain is over.
                    start_new_session=True,
                )
        except OSError as error:
            raise EmbeddedError(f"{binary.path} can't be run on {self.directory}: {error}") from error
        # Reaps the server when it ends. asyncio's child watcher can't do it: when the loop closes, it would kill a
        # server that other processes still share.
        threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
        # The pid is for people who look for the process. No decision depends on it, so errors are ignored.
        with suppress(OSError):
            os.truncate(lock, 0)
            os.pwrite(lock, f"{process.pid}\n".encode(), 0)
        return start

    async def condition(self) -> Literal["ready", "loading", "silent"]:
        """What a client would meet at the socket now."""
        try:
            async with self._client() as client:
                await client.ping()
        except BusyLoadingError:
            return "loading"
        except (RedisError, OSError):
            return "silent"
        return "ready"

    async def ask_to_end(self) -> None:
        """Ask once. Whether it worked shows when server.lock becomes free.

        Sends plain SHUTDOWN, with neither NOSAVE nor FORCE. With an append-only file the server then writes and syncs
        everything that it has acknowledged; if it can't, it refuses to end.
        """
        with suppress(RedisError, OSError):
            async with self._client() as client:
                await client.shutdown()

    def why_ended(self, start: Start) -> str:
        return (
            f"{start.binary.path} ({start.binary.edition}) does not run on {self.directory}. "
            f"Its log, {self.log_file}, ends:\n{self._log_tail(start.log_offset)}"
        )

    def why_silent(self) -> str:
        try:
            pid = self.server_lock.read_text().strip()
        except OSError:
            pid = "unknown"
        return (
            f"the server on {self.directory} (process {pid}) does not answer at {self.socket_path}. If its "
            "socket was deleted, or the directory was moved, end that process and start again. "
            f"Its log, {self.log_file}, ends:\n{self._log_tail(0)}"
        )

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Redis]:
        # No retries, because the callers' loops repeat. The deadline is not redis-py's `socket_timeout`, which can
        # swallow the cancellation of the supervisor (`connection.answered` tells how).
        async with asyncio.timeout(ANSWER_S):
            async with Redis(
                unix_socket_path=str(self.socket_path), socket_timeout=None, retry=Retry(NoBackoff(), 0)
            ) as client:
                yield client

    def _log_tail(self, offset: int) -> str:
        """The last lines of the log, of those after `offset`."""
        try:
            with self.log_file.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(offset, size - TAIL_BYTES))
                lines = file.read(TAIL_BYTES).decode(errors="replace").splitlines()
        except OSError as error:
            return f"  (unreadable: {error})"
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (empty)"


def _arguments() -> list[str]:
    return [argument for name, value in SETTINGS.items() for argument in (f"--{name}", value)]
