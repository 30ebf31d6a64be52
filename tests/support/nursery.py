"""Replicas as processes of their own that begin with all modules loaded: each is a fork of one that did nothing else.

Loading takes most of the CPU of a start, and the tests start Pollux very often. A forked process is as real as any
other: it has its own memory, sockets and threads, and dies by `kill -9`. Its parent, the nursery, tells how it ended.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.pages import ROOT

AVAILABLE = sys.platform == "linux"
"""Elsewhere, what a process holds of the system may not survive a fork."""


class Forked:
    """One process, as `asyncio.subprocess.Process` would show it."""

    def __init__(self, pid: int, news: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._writer = writer
        self._ending = asyncio.create_task(self._end(news), name=f"the end of process {pid}")

    async def wait(self) -> int:
        """Wait for its end, and return its exit code, or the negative number of the signal that killed it."""
        return await asyncio.shield(self._ending)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def _end(self, news: asyncio.StreamReader) -> int:
        self.returncode = code = int(await news.readline())
        self._writer.close()
        return code


async def fork(words: Sequence[str], environ: Mapping[str, str], log: Path, before: str) -> Forked:
    """Start `python -m server` with these words. What it prints is added to the log; `before` is code to run first."""
    ours, theirs = socket.socketpair()
    wanted = {"words": [*words], "environ": dict(environ), "cwd": str(Path.cwd()), "log": str(log), "before": before}
    with theirs:
        socket.send_fds(_nursery(), [json.dumps(wanted).encode()], [theirs.fileno()])
    news, writer = await asyncio.open_unix_connection(sock=ours)
    return Forked(int(await news.readline()), news, writer)


@functools.cache
def _nursery() -> socket.socket:
    """The way to the nursery of this process, which ends with it. One message is one process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.support.nursery_process", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=ROOT)
    atexit.register(process.wait)
    atexit.register(ours.close)  # runs before
    return ours
