"""`make demo` says the truth: it ends with 0 if all holds, with 1 and the reason if not, and leaves nothing running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

DEMO = Path(__file__).parents[2] / "deploy" / "demo.py"

PARTS = {
    "1  A cached run": "✓ its text grew in",
    "2  A stream": "✓ the joined text is the final output",
    "3  kill -9": "✓ the output is the answer to its input, and whole",
    "4  A cancel": "✓ it stays cancelled",
    "5  A native run": "✓ a GET that waits returns when it is completed",
    "6  Another dialect": "✓ for that the provider, which keeps nothing, was told what was said before",
}
"""What must be seen of each part: its title, and the claim that it is about."""


@contextmanager
def running_demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, with this as its directory for temporary files.

    `python -O`, because nothing that it claims may go unchecked there. The address of another store in its
    environment must not lead it astray.
    """
    with subprocess.Popen(
        [sys.executable, "-O", str(DEMO), *options],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8", "POLLUX_STORE": "redis://127.0.0.1:1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as demo:
        try:
            yield demo
        finally:
            demo.terminate()
            demo.wait(30)


def read_until(demo: subprocess.Popen[str], wanted: str) -> str:
    """What it prints up to the first line that has this in it."""
    assert demo.stdout is not None
    printed = ""
    while wanted not in printed:
        line = demo.stdout.readline()
        assert line, f"it ended without {wanted!r}:\n{printed}"
        printed += line
    return printed


def read_to_end(demo: subprocess.Popen[str]) -> str:
    assert demo.stdout is not None
    printed = demo.stdout.read()
    demo.wait(10)
    return printed


async def nothing_is_left(folder: Path) -> None:
    """No process of this demo runs, and no file of it is there."""
    # What is killed leaves its socket, for `pollux reload` to remove.
    sockets = f"pollux-{os.geteuid()}"
    assert [left for left in folder.iterdir() if left.name != sockets] == []
    await nothing_runs(folder)


async def nothing_runs(folder: Path) -> None:
    await wait_until(lambda: not processes_of(folder), timeout_s=5, what="everything that it started has ended")


def processes_of(folder: Path) -> list[str]:
    """Our servers inherit the demo's environment; the store does not, but works in its directory. Needs /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment, place = (process / "environ").read_text(errors="replace"), (process / "cwd").readlink()
        except OSError:
            continue  # It ended while we looked, or is somebody else's.
        if f"TMPDIR={folder}" in environment or place.is_relative_to(folder):
            found.append(process.name)
    return found


@pytest.mark.slow
async def test_the_demo_shows_its_six_parts_and_ends_with_0(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        read_until(demo, "pollux serves")
        assert processes_of(tmp_path) or not Path("/proc").exists(), "else `nothing_is_left` would prove nothing"
        printed = read_to_end(demo)
    assert demo.returncode == 0, printed
    for title, claim in PARTS.items():
        assert title in printed
        assert claim in printed
    assert "✗" not in printed
    assert re.search(r"litellm_poll_[0-9a-f-]{36}", printed), "it shows ids"
    assert re.search(r"^ +\d+\.\d\d s  ", printed, re.MULTILINE), "and times"
    assert "\033" not in printed, "and no colours where there is no terminal"
    await nothing_is_left(tmp_path)


async def test_the_demo_fails_and_says_why_when_its_provider_dies(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        # So early that no run can have ended yet, however slow we are ourselves.
        printed = read_until(demo, "simulator serves")
        simulator = re.search(r"simulator serves at \S+ \(process (\d+)\)", printed)
        assert simulator, printed
        os.kill(int(simulator[1]), signal.SIGKILL)
        printed += read_to_end(demo)
    assert demo.returncode == 1, printed
    assert "✗ it is completed, with its usage (found: " in printed
    assert "the simulator had ended by itself, with exit code -9" in printed
    assert "The demo failed: this claim does not hold: it is completed, with its usage" in printed
    assert "All of it held" not in printed
    [logs] = re.findall(r"Config, store and logs are in (\S+)", printed)
    assert "response started" in (Path(logs) / "pollux.log").read_text()
    assert "response started" in printed, "the end of the log is on the screen"
    await nothing_runs(tmp_path)


@pytest.mark.slow
async def test_ctrl_c_ends_the_demo_and_the_store_that_a_killed_pollux_left(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        read_until(demo, "pollux is killed")
        demo.send_signal(signal.SIGINT)
        printed = read_to_end(demo)
    assert demo.returncode == 130, printed
    await nothing_is_left(tmp_path)
