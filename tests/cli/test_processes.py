"""Commands as processes: pipes, Ctrl-C, terminals, and a server that is killed meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.replica import (
    CACHED,
    Replica,
    create,
    free_port,
    make_config,
    replica_process,
    running_replica,
    with_output,
)
from tests.support.shell import Shell, shell_for

SLOW = "Hello [[words=200]] [[rate=10]]"


async def test_ctrl_c_ends_the_watching_and_not_the_response(pollux: Replica, tmp_path: Path) -> None:
    shell = shell_for(pollux, tmp_path)
    response_id = await create(pollux, SLOW, stream=True)
    async with shell.process("watch", response_id) as watching:
        assert watching.stdout is not None
        await asyncio.wait_for(watching.stdout.readexactly(20), 20)
        watching.send_signal(signal.SIGINT)
        _, told = await asyncio.wait_for(watching.communicate(), 20)
    assert watching.returncode == 130
    assert f"pollux watch {response_id}" in told.decode()
    assert "Traceback" not in told.decode()
    assert (await with_output(pollux, response_id))["status"] == "in_progress"


async def test_a_reader_that_has_enough_is_no_error_to_tell_of(pollux: Replica, tmp_path: Path) -> None:
    shell = shell_for(pollux, tmp_path)
    response_id = await create(pollux, "Hello [[words=400]]", stream=True)
    read, write = os.pipe()
    async with shell.process("watch", response_id, "--json", stdout=write) as watching:
        os.close(write)
        await asyncio.to_thread(os.read, read, 10)
        os.close(read)
        assert watching.stderr is not None
        told = await asyncio.wait_for(watching.stderr.read(), 20)
        code = await asyncio.wait_for(watching.wait(), 10)
    assert (code, told) == (141, b"")


@pytest.mark.slow
async def test_watching_goes_on_over_a_kill_of_the_server_and_misses_no_event(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    """The server that is asked dies and comes back at its address; another one runs the job."""
    config = make_config(simulator)
    asked = {**config, "pollux": {**config["pollux"], "worker_concurrency": 0}}
    port = free_port()
    async with running_replica(config, store_url), replica_process(asked, store_url, tmp_path, port=port) as first:
        streamed = await create(first, "Hello [[words=60]] [[rate=15]]", stream=True)
        polled = await create(first, "Hello [[words=60]] [[rate=15]]")
        shell = shell_for(first, tmp_path)
        async with (
            shell.process("watch", streamed, "--json") as by_events,
            shell.process("watch", polled) as by_states,
        ):
            assert by_events.stdout is not None
            assert by_states.stdout is not None
            lines = [await asyncio.wait_for(by_events.stdout.readline(), 20) for _ in range(12)]
            begun = await asyncio.wait_for(by_states.stdout.readexactly(30), 20)
            await first.kill()
            async with replica_process(asked, store_url, tmp_path, port=port):
                rest, told = await asyncio.wait_for(by_events.communicate(), 30)
                grown, _ = await asyncio.wait_for(by_states.communicate(), 30)
    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    assert (by_events.returncode, by_states.returncode) == (0, 0)
    assert "trying again" in told.decode()
    assert len((begun + grown).split()) == 60, "nothing twice, and nothing missing"


def begun_on_a_terminal(shell: Shell, *words: str, into: Path | None = None) -> tuple[subprocess.Popen[bytes], int]:
    """A command on a terminal of 80 by 24, and the other end of that."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {**os.environ, "XDG_CONFIG_HOME": str(shell.home), "TERM": "xterm", **shell.environ}
    command = [sys.executable, "-m", "server", *words]
    with into.open("wb") if into else nullcontext(theirs) as output:
        process = subprocess.Popen(command, stdin=theirs, stdout=output, stderr=theirs, env=environ)
    os.close(theirs)
    return process, ours


def shown_until(ours: int, told: bytes | None = None) -> str:
    """What a terminal shows from now on until it is told this, or has no other end any more."""
    shown = b""
    while told is None or told not in shown:
        assert select.select([ours], [], [], 40)[0], f"the terminal shows nothing more, after {shown!r}"
        try:
            shown += (read := os.read(ours, 65536))
        except OSError:
            break  # so Linux tells that the other end is closed
        if not read:
            break
    return shown.decode()


def on_a_terminal(shell: Shell, *words: str, term_at: bytes | None = None, into: Path | None = None) -> tuple[int, str]:
    """What a command shows on a terminal. It gets a SIGTERM once it has shown `term_at`."""
    process, ours = begun_on_a_terminal(shell, *words, into=into)
    shown = ""
    if term_at:
        shown = shown_until(ours, term_at)
        process.terminate()
    shown += shown_until(ours)
    os.close(ours)
    return process.wait(20), shown


async def test_a_terminal_shows_progress_in_colour_and_obeys_no_stranger(pollux: Replica, tmp_path: Path) -> None:
    shell = shell_for(pollux, tmp_path, POLLUX_MODEL=CACHED)
    code, shown = await asyncio.to_thread(
        on_a_terminal, shell, "submit", "\033]0;owned\007 Hello [[words=30]] [[rate=30]]", "--wait"
    )
    assert code == 0
    assert "in_progress" in shown
    assert "tokens" in shown
    assert "\033[32m✓ completed" in shown, "in green"
    assert "owned" in shown
    assert "\033]0;" not in shown, "the answer repeats what would name the window"

    response_id = (await shell.fine("list", "-q")).strip()
    code, shown = await asyncio.to_thread(on_a_terminal, shell, "list")
    assert response_id.removeprefix("litellm_poll_")[:8] in shown
    assert response_id not in shown, "ids are short here"
    bare = shell_for(pollux, tmp_path, NO_COLOR="1")
    code, shown = await asyncio.to_thread(on_a_terminal, bare, "show", response_id)
    assert "completed" in shown
    assert "\033[3" not in shown


async def test_what_goes_into_a_file_gets_there_while_the_terminal_shows_progress(
    pollux: Replica, tmp_path: Path
) -> None:
    shell, into = shell_for(pollux, tmp_path, POLLUX_MODEL=CACHED), tmp_path / "out"

    async def written(*words: str) -> str:
        code, shown = await asyncio.to_thread(on_a_terminal, shell, *words, into=into)
        assert (code, "\033[?25l" in shown) == (0, True)
        return into.read_text()

    said = "Hello [[words=20]] [[rate=20]]"
    assert len((await written("submit", said, "--wait")).split()) == 20
    events = [json.loads(line) for line in (await written("submit", said, "--stream", "--json")).splitlines()]
    assert events[-1]["type"] == "response.completed"
    response_id = await shell.fine("submit", said)
    assert await written("wait", response_id) == f"{response_id} completed\n"


async def test_a_table_remembers_how_those_ended_that_have_expired(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator)
    config["litellm_settings"]["responses"]["background_mode"]["ttl"] = 1
    async with running_replica(config, store_url) as pollux:
        shell = shell_for(pollux, tmp_path)
        soon, later = [
            await create(pollux, f"Hi [[words={words}]] [[rate=10]]") for words in (40, 90)
        ]  # the first must still be there when it is looked at
        code, shown = await asyncio.to_thread(on_a_terminal, shell, "watch", soon, later)
    assert (code, "deleted" in shown) == (0, False)
    assert "0 of 2 unfinished" in shown


async def test_a_terminal_gets_back_its_cursor_from_a_command_that_is_ended(pollux: Replica, tmp_path: Path) -> None:
    shell = shell_for(pollux, tmp_path)
    response_id = await create(pollux, SLOW)
    code, shown = await asyncio.to_thread(on_a_terminal, shell, "watch", response_id, term_at=b"in_progress")
    assert code == 143
    assert shown.rindex("\033[?25h") > shown.rindex("\033[?25l")


async def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(pollux: Replica, tmp_path: Path) -> None:
    shell = shell_for(pollux, tmp_path)

    def stopped_and_continued() -> list[str]:
        process, ours = begun_on_a_terminal(shell, "top")
        told = [shown_until(ours, b"Nothing runs.")]
        process.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        told.append(shown_until(ours, b"\033[?25h"))
        process.send_signal(signal.SIGCONT)
        told.append(shown_until(ours, b"Nothing runs."))
        process.kill()
        process.wait(20)
        os.close(ours)
        return told

    begun, stopped, again = await asyncio.to_thread(stopped_and_continued)
    assert "\033[?1049h" in begun, "a screen of its own"
    assert "\033[?1049l" in stopped
    assert "\033[?1049h" in again
    assert "\033[?25l" in again


async def test_a_terminal_that_can_move_no_cursor_gets_lines(pollux: Replica, tmp_path: Path) -> None:
    shell = shell_for(pollux, tmp_path, POLLUX_MODEL=CACHED, TERM="dumb")
    code, shown = await asyncio.to_thread(on_a_terminal, shell, "submit", "\033[2J [[words=30]]", "--wait")
    assert (code, "\033" in shown, "in_progress" in shown) == (0, False, False)
    assert len(shown.partition("✓")[0].split()) == 30
    code, shown = await asyncio.to_thread(on_a_terminal, shell, "top")
    assert code == 0
    assert CACHED in shown


async def test_a_pipe_gets_plain_text(pollux: Replica, tmp_path: Path) -> None:
    shell = shell_for(pollux, tmp_path, POLLUX_MODEL=CACHED)
    ran = await shell.run("submit", "Hello [[words=30]]", "--wait")
    assert "\033" not in ran.out + ran.err
    assert "\033" not in await shell.fine("list") + await shell.fine("top", "--once")
