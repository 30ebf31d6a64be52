"""One server process on one directory: start it, ask how it is, ask it to end, read what it said.

Nothing here decides anything; who may do which of these, and when, is the business of `storage.embedded`.
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
"""A start on a longer log moves it to server.log.1 first. While it runs, a server logs a few lines a day."""
TAIL_BYTES, TAIL_LINES = 2000, 8
"""How much of the log goes into an error message: the reason is in the last lines."""
ANSWER_S = 1.0

SETTINGS = {
    # Relative to the working directory, which is the data directory: so its name needs no quoting.
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
class Start:
    """A server that this process started: enough to tell what became of it."""

    binary: Binary
    log_offset: int


@dataclass(frozen=True)
class EmbeddedServer:
    """The server of a directory, whoever started it. Users of the store need only `socket_path`."""

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

    def make_socket_directory(self) -> None:
        """Make sure that nobody else can put a socket of theirs where we are going to connect.

        Raises `EmbeddedError` if somebody has the place.
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

        Blocks for a few milliseconds, so that no cancellation can fall between starting and knowing of it.
        Raises `EmbeddedError` if the program can't be run; whether the server stays is seen later.
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
                    # Ctrl-C goes to the whole process group: the store must outlive our drain.
                    start_new_session=True,
                )
        except OSError as error:
            raise EmbeddedError(f"{binary.path} can't be run on {self.directory}: {error}") from error
        # Reaps it the moment it ends. Not asyncio's child watcher: closing the loop would kill a server that
        # others still share.
        threading.Thread(target=process.wait, name=f"reap {process.pid}", daemon=True).start()
        # For people who look for the process; no decision rests on it, so a full disk may spoil it.
        with suppress(OSError):
            os.truncate(lock, 0)
            os.pwrite(lock, f"{process.pid}\n".encode(), 0)
        return start

    async def condition(self) -> Literal["ready", "loading", "silent"]:
        """What a client would find at the socket now."""
        try:
            async with self._client() as client:
                await client.ping()
        except BusyLoadingError:
            return "loading"
        except (RedisError, OSError):
            return "silent"
        return "ready"

    async def ask_to_end(self) -> None:
        """One try; what came of it shows at the lock.

        Plain SHUTDOWN, neither NOSAVE nor FORCE: with an append-only file it writes and syncs all that was
        acknowledged, and rather refuses than lose it.
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
        # No retries: the callers' loops repeat what matters. The deadline is not redis-py's `socket_timeout`, which
        # can swallow the cancellation of the supervisor (`connection.answered` tells how).
        async with asyncio.timeout(ANSWER_S):
            async with Redis(
                unix_socket_path=str(self.socket_path), socket_timeout=None, retry=Retry(NoBackoff(), 0)
            ) as client:
                yield client

    def _log_tail(self, offset: int) -> str:
        """The last lines that were logged after `offset`."""
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
