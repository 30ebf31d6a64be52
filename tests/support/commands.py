"""`pollux serve` as an operator starts it: its processes, what they log, and the command that reloads them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.replica import Replica
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Command:
    """A running `pollux serve`: the process that was started, and what all its processes logged."""

    process: asyncio.subprocess.Process
    output: Path
    config: Path
    pollux: dict[str, Any]
    """The section of the config that it was started with."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        whole = self.output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def logged(self, beginning: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"].startswith(beginning)]

    @property
    def serving(self) -> list[int]:
        """The processes that ever served, in that order."""
        return [line.get("pid", self.process.pid) for line in self.logged("serving on")]

    async def serve(self, count: int = 1) -> Replica:
        """It, once so many processes have begun to serve."""

        def have_begun() -> bool:
            assert self.process.returncode is None, self.output.read_text()
            return len(self.serving) >= count

        await wait_until(have_begun, timeout_s=20, what=f"{count} serve")
        return Replica(self.logged("serving on")[0]["message"].split()[2].rstrip(","), process=self.process)

    def write(self, config: dict[str, Any]) -> None:
        """Replace the config file by another one, as a careful operator does, for the same store."""
        kept = {name: self.pollux[name] for name in ("store", "log_format")}
        new = self.config.with_suffix(".new")
        new.write_text(yaml.safe_dump({**config, "pollux": {**config["pollux"], **kept}}))
        new.rename(self.config)

    async def hang_up(self, config: dict[str, Any], beginning: str = "the config was reloaded") -> None:
        """Replace the config and send SIGHUP. Returns once the process logs a line that begins so."""

        def told() -> int:
            own = self.process.pid
            return len([line for line in self.logged(beginning) if line.get("pid", own) == own])

        self.write(config)
        before = told()
        self.process.send_signal(signal.SIGHUP)
        await wait_until(lambda: told() > before, timeout_s=60, what="it has reloaded")

    async def reload(self) -> tuple[int, str]:
        """`pollux reload`: the exit code, and what it says."""
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", "reload", "--pid", str(self.process.pid)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asked.communicate()
        assert asked.returncode is not None
        return asked.returncode, said.decode()

    async def ended(self, within_s: float = 10) -> int:
        return await asyncio.wait_for(self.process.wait(), within_s)


@asynccontextmanager
async def command(folder: Path, config: dict[str, Any], store: str, *options: str) -> AsyncIterator[Command]:
    """`pollux serve`, in a process group of its own as from a terminal; nothing of it is left at the end."""
    config = {**config, "pollux": {"log_format": "json", **config["pollux"], "store": store}}
    name = f"command-{len(list(folder.glob('*.yaml')))}"
    file, output = folder / f"{name}.yaml", folder / f"{name}.log"
    file.write_text(yaml.safe_dump(config))
    if "--port" not in options:
        options = (*options, "--port", "0")
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", "serve", "--config", str(file), *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={name: value for name, value in os.environ.items() if not name.startswith("POLLUX_")},
            start_new_session=True,
        )
    running = Command(process, output, file, config["pollux"])
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pid in running.serving:
            if lives(pid):
                os.kill(pid, signal.SIGKILL)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    # Nobody may be there to bury an orphan.
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
