"""Where `pollux reload` finds the servers of this user, and learns what came of a reload.

Each server (of several processes their parent) listens on a socket of its own in a directory that only its user can
enter. So no port, no key and no file with a process id is needed, and unlike a signal it answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from server.config.sections import setting
from server.protocol import jsontext
from server.reload.reload import Reloads, Report

log = logging.getLogger("pollux.config")

RELOAD = b"reload\n"
ASKED_WITHIN_S = 5.0
ANSWERED_WITHIN_S = 60.0
"""How long `pollux reload` waits: longer than any reload takes, unless the server is only just starting."""
MOST_ASKING = 16
LONGEST_QUESTION = 1024
LONGEST_ANSWER = 1 << 20

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class NoServer(OSError):
    """There is no server that could be asked."""


def directory() -> Path:
    """This user's: systemd's `RUNTIME_DIRECTORY`, else one in `XDG_RUNTIME_DIR`, else one among temporary files."""
    if given := setting(os.environ, "RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0])
    if runtime := setting(os.environ, "XDG_RUNTIME_DIR"):
        return Path(runtime) / "pollux"
    return Path(tempfile.gettempdir()) / f"pollux-{os.geteuid()}"


@asynccontextmanager
async def controlled(reloads: Reloads) -> AsyncIterator[None]:
    """Let `pollux reload` ask for reloads during the block.

    Where there is no place for a socket, the log says so, and SIGHUP is left.
    """
    asking: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(asking) >= MOST_ASKING:
            writer.close()
            return
        asking.add(task)
        try:
            await _answer(reader, writer, reloads)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.info("nobody waits for what came of a reload: %s", error)
        finally:
            asking.discard(task)
            writer.close()

    try:
        path = directory() / f"{os.getpid()}.sock"  # an error where nothing temporary can be written
        _make_private(path.parent)
        path.unlink(missing_ok=True)  # of a process that had the same number
        server = await _listening(path, answer)
    except OSError as error:
        log.warning("pollux reload won't find this server, so reload it by SIGHUP: %s", error)
        yield
        return
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _listening(path: Path, answer: Answer) -> asyncio.Server:
    """Listen for this user alone, whatever the umask, and whoever else can enter the directory."""
    server = await asyncio.start_unix_server(answer, path, limit=LONGEST_QUESTION, start_serving=False)
    try:
        _keep_others_out(path)  # nobody can connect before it listens
        await server.start_serving()
    except OSError:
        server.close()
        raise
    return server


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reloads: Reloads) -> None:
    async with asyncio.timeout(ASKED_WITHIN_S):
        asked = await reader.readuntil()
    if asked != RELOAD:
        return
    told: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
    reloads.ask(lambda report: None if told.done() else told.set_result(report))
    async with asyncio.timeout(ANSWERED_WITHIN_S):
        report = await told
        writer.write(jsontext.dumps({"applied": report.applied, "told": report.told}))
        await writer.drain()


def _make_private(folder: Path) -> None:
    """Make the directory, or make sure that it is ours alone: in one for temporary files others could have made it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    if found.st_mode & 0o022:
        raise PermissionError(f"others can write to {folder}")


def _keep_others_out(path: Path) -> None:
    path.chmod(0o600)


def ask_servers(pid: int | None) -> Iterator[tuple[int, Report]]:
    """Ask all servers of this user, or the one with this process id, to reload, and give each with its report.

    Raises:
        NoServer

    """
    folder = directory()
    found = sorted(int(path.stem) for path in folder.glob("*.sock") if path.stem.isdigit())
    asked = False
    for one in found if pid is None else [pid]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWERED_WITHIN_S)
            try:
                connection.connect(str(folder / f"{one}.sock"))
            except (FileNotFoundError, ConnectionRefusedError):
                # A server that was killed leaves its socket behind.
                with suppress(OSError):
                    (folder / f"{one}.sock").unlink(missing_ok=True)
                continue
            asked = True
            yield one, _ask(connection)
    if not asked:
        which = "no server of this user" if pid is None else f"no server with the process id {pid}"
        raise NoServer(f"{which} listens in {folder}. SIGHUP has the same effect, and the log says what came of it")


def _ask(connection: socket.socket) -> Report:
    text = bytearray()
    try:
        connection.sendall(RELOAD)
        while len(text) < LONGEST_ANSWER and (piece := connection.recv(1 << 16)):
            text += piece
        said = jsontext.loads(bytes(text))
    except (OSError, ValueError):
        return Report(applied=False, told="it did not say what came of it: its log does")
    return Report(said["applied"], said["told"])
