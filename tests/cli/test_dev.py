"""`pollux dev`: one command from nothing to a page, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from server.cli.dev import MODELS
from tests.support.replica import free_port
from tests.support.shell import Shell
from tests.support.waiting import wait_until

WITHIN_S = 60.0
"""A start takes two seconds where nothing else runs, and twenty times that beside five other workers of a test run."""
ROOT = Path(__file__).parents[2]
by_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="it looks at /proc")


def options(folder: Path, *more: str) -> list[str]:
    return [
        *("--directory", str(folder / "dev"), "--port", str(free_port()), "--simulator-port", str(free_port())),
        *more,
    ]


@asynccontextmanager
async def dev(shell: Shell, *words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """It, once it is ready, and what it has printed by then."""
    async with shell.process("dev", *words, stderr=asyncio.subprocess.STDOUT) as process:
        yield process, await printed_until_ready(process)


async def printed_until_ready(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    printed = ""
    async with asyncio.timeout(WITHIN_S):
        while "Ctrl-C ends all." not in printed:
            line = await process.stdout.readline()
            assert line, f"it ended:\n{printed}"
            printed += line.decode()
    return printed


async def ended(process: asyncio.subprocess.Process, number: signal.Signals = signal.SIGINT) -> str:
    process.send_signal(number)
    assert process.stdout is not None
    rest = (await asyncio.wait_for(process.stdout.read(), WITHIN_S)).decode()
    await asyncio.wait_for(process.wait(), WITHIN_S)
    return rest


def processes_of(folder: Path) -> list[str]:
    """Ours name the folder in their environment or their command; the store works in it. Needs /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            place = (process / "cwd").readlink()
        except OSError:
            continue  # it ended while we looked, or is somebody else's
        if int(process.name) != os.getpid() and (os.fsencode(folder) in told or place.is_relative_to(folder)):
            found.append(process.name)
    return found


async def test_it_serves_models_of_three_dialects_and_a_page_and_keeps_what_it_did(tmp_path: Path) -> None:
    shell, words = Shell(tmp_path, {"POLLUX_STORE": "redis://127.0.0.1:1"}), options(tmp_path)
    asks = Shell(tmp_path, {})
    async with dev(shell, *words) as (process, printed):
        for model in MODELS:
            assert model in printed
            said = await asks.fine("submit", "-m", model, "Hello [[words=12]]", "--wait")
            assert said.startswith("You said: Hello"), "it is found without a URL and a key"
        page = re.search(r"(http://127\.0\.0\.1:\d+)/ui/#/key=(\S+)", printed)
        assert page
        async with aiohttp.ClientSession() as http, http.get(f"{page[1]}/ui/") as answer:
            assert answer.status == 200
        took = re.search(r"ready in ([\d.]+) s", printed)
        assert took
        assert "\033" not in printed, "this is no terminal"
        ids = await asks.fine("list", "-q")
        assert len(ids.split()) == 3, "the native one is its provider's"
        await ended(process)
        assert process.returncode == 0
    assert (await asks.run("list")).code == 4, "it has forgotten where it was"
    assert not processes_of(tmp_path)

    async with dev(shell, *words) as (process, _):
        assert await asks.fine("list", "-q") == ids
        second = await shell.run("dev", *words)
        assert second.code == 1
        assert "--port" in second.err
        second = await shell.run("dev", *words[:2], *options(tmp_path)[2:], "--fresh")
        assert second.code == 1
        assert "--directory" in second.err
        async with dev(shell, *options(tmp_path / "another")) as (another, printed):
            assert "export POLLUX_URL=" in printed, "the first one is the one that is found"
            await ended(another)
        assert await asks.fine("list", "-q") == ids, "the first one goes on"
        await ended(process, signal.SIGTERM)
    async with dev(shell, *words, "--fresh"):
        assert await asks.fine("list", "-q") == ""


@by_proc
@pytest.mark.parametrize(
    ("number", "whom"),
    [
        (signal.SIGINT, "all"),
        (signal.SIGHUP, "all"),
        (signal.SIGTERM, "make"),
        (signal.SIGKILL, "make"),
        (signal.SIGKILL, "dev"),
        (signal.SIGKILL, "all"),
    ],
)
async def test_however_make_run_is_stopped_nothing_runs_on(number: signal.Signals, whom: str, tmp_path: Path) -> None:
    """A terminal signals all: with Ctrl-C, and when it is closed. (`make` waits for what it started on a hang-up.)"""
    (tmp_path / "Makefile").write_text(f"run:\n\t{sys.executable} -m server dev {' '.join(options(tmp_path))}\n")
    make = await asyncio.create_subprocess_exec(
        *("make", "-f", str(tmp_path / "Makefile")),
        cwd=ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        await printed_until_ready(make)
        [ours] = Path(f"/proc/{make.pid}/task/{make.pid}/children").read_text().split()
        assert len(processes_of(tmp_path)) >= 4, "make, Pollux, its store and who ends that"
        if whom == "all":
            os.killpg(make.pid, number)
        else:
            os.kill(make.pid if whom == "make" else int(ours), number)
        await wait_until(lambda: not processes_of(tmp_path), timeout_s=WITHIN_S, what="all have ended")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)
        # To the end of what they print: a pipe that is still open when the loop closes is an error of some later test.
        await asyncio.wait_for(make.communicate(), WITHIN_S)


def test_make_run_is_pollux_dev() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old=install", "run", "ARGS=--open"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert told.stdout.splitlines()[-1].endswith("pollux dev --open")
