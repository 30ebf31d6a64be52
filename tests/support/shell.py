"""The command line for tests: in this process, in a thread beside the server, or as a process of its own."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.cli import main
from tests.support.replica import ALICE, Replica

OURS = ("POLLUX_", "XDG_CONFIG_HOME", "NO_COLOR")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Shell:
    """A place to run `pollux` in: what the environment says, and a home without settings."""

    home: Path
    environ: Mapping[str, str]

    async def run(self, *words: str, stdin: str = "") -> Ran:
        """Run a command in this process, and let the server in it go on meanwhile."""
        return await asyncio.to_thread(self._run, words, stdin)

    def _run(self, words: tuple[str, ...], stdin: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with self._entered(), _given(stdin), redirect_stdout(out), redirect_stderr(err):
            code = main(list(words))
        return Ran(code, out.getvalue(), err.getvalue())

    async def fine(self, *words: str, stdin: str = "") -> str:
        """What a command prints that succeeds."""
        ran = await self.run(*words, stdin=stdin)
        assert ran.code == 0, ran
        return ran.out.strip()

    @asynccontextmanager
    async def process(
        self, *words: str, start: Sequence[str] = (sys.executable, "-m", "server"), **options: Any
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A command as a process of its own. Killed at the end, if it still runs."""
        given = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, **options}
        process = await asyncio.create_subprocess_exec(
            *(*start, *words),
            env=self._whole_environ(),
            stdin=asyncio.subprocess.DEVNULL,
            **given,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()  # a pipe that is still open when the loop closes is an error of some later test

    def _whole_environ(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return {**others, "XDG_CONFIG_HOME": str(self.home), **self.environ}

    @contextmanager
    def _entered(self) -> Iterator[None]:
        before, ours = dict(os.environ), logging.getLogger("pollux")
        level = ours.level
        # Another test may have left a handler with a stream that is closed; what that says is not the command's.
        logging.raiseExceptions = False
        try:
            os.environ.clear()
            os.environ.update(self._whole_environ())
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            logging.raiseExceptions = True
            ours.setLevel(level)


@contextmanager
def _given(stdin: str) -> Iterator[None]:
    before, sys.stdin = sys.stdin, io.StringIO(stdin)
    try:
        yield
    finally:
        sys.stdin = before


def shell_for(replica: Replica, home: Path, key: str = ALICE, **environ: str) -> Shell:
    """A place where the environment names this replica and this key."""
    return Shell(home, {"POLLUX_URL": replica.url, "POLLUX_API_KEY": key, **environ})
