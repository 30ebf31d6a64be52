"""What reaches a terminal, a pipe, a file: whole, in its encoding, and no command of a stranger's."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from server.cli.output import in_one_line, safe, say_json
from tests.support.shell import Shell
from tests.support.upstreams import running_script

NASTY = "a\x1b[2J\x9b1m \u202eb\u202c\u2028c\x85d \ud800e\r\nf\tg 日本 😀"


def test_what_would_command_a_terminal_is_left_out() -> None:
    assert safe("a\033[2J\x07\x9b1m\r b\n\tc") == "a[2J1m b\n\tc"
    assert safe("\u202eab\u2066\u2028") == "ab", "nor is it shown in another order than it has"
    assert in_one_line("a\033 b\r\n\n c\rd\t") == "a b c d"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_one_line_in_any_encoding_and_commands_no_terminal(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    say_json({"text": NASTY})
    written = raw.getvalue().decode(encoding)
    assert len(written.splitlines()) == 1
    assert json.loads(written) == {"text": NASTY}
    assert safe(written) == written


async def test_output_that_is_closed_full_or_of_another_encoding_is_no_accident(tmp_path: Path) -> None:
    job = {"id": "resp_1", "status": "completed", "created_at": 1, "model": NASTY, "metadata": {"name": NASTY}}

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"data": [job], "next_page": None})

    async def ran(words: str, **environ: str) -> tuple[int | None, str]:
        shell = Shell(tmp_path, {"POLLUX_URL": upstream.base_url, **environ})
        script = f"exec {sys.executable} -m server {words}"
        async with shell.process(start=("sh", "-c", script)) as process:
            _, told = await asyncio.wait_for(process.communicate(), 30)
            return process.returncode, told.decode()

    async with running_script(answer) as upstream:
        closed_in, closed_out, closed_err, full, ascii_, ascii_json, unread = await asyncio.gather(
            ran("list <&-"),
            ran("list >&-"),
            ran("list 2>&-"),
            ran("list >/dev/full"),
            ran("list", PYTHONIOENCODING="ascii"),
            ran("list --json", PYTHONIOENCODING="ascii"),
            ran("list --json | true", PYTHONUNBUFFERED="1"),
        )
    for code, told in (closed_in, closed_out, closed_err, ascii_, ascii_json, unread):
        assert (code, told) == (0, "")
    assert full == (1, "pollux: the output can't be written: No space left on device\n")


async def test_errors_of_strangers_command_no_terminal(tmp_path: Path) -> None:
    async def answer(_request: web.Request) -> web.Response:
        body: dict[str, Any] = {"error": {"message": NASTY}}
        return web.json_response(body, status=400)

    async with running_script(answer) as upstream:
        for words in (["list"], ["submit", "-m", "any", "Hi"], ["watch", "any"]):
            ran = await Shell(tmp_path, {"POLLUX_URL": upstream.base_url}).run(*words)
            assert ran.code == 2
            assert safe(ran.err) == ran.err


def test_ctrl_c_before_a_command_has_begun_prints_no_trace() -> None:
    script = """
import builtins, os, signal, sys
def hook(name, *rest, real=builtins.__import__):
    if name == "typer":
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__, sys.argv = hook, ["pollux", "list"]
import server.__main__
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (-signal.SIGINT, b"")
