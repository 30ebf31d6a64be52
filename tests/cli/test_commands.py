"""The command line as a whole: its help, what it loads, and how it takes wrong usage."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from server import __version__
from server.cli import main
from server.cli.commands import EXAMPLES, TABLE, loaded
from tests.support.replica import free_port

HEAVY = {"aiohttp", "redis", "pydantic", "uvloop", "storage", "prometheus_client"}
PARTS_OF_THE_SERVER = HEAVY - {"pydantic"} | {"server.config.config", "server.protocol.snapshot"}
"""Typer checks options with pydantic."""


def loads(*words: str) -> set[str]:
    """The modules that a command loads."""
    script = "import json, sys; from server.__main__ import main; main(sys.argv[1:]); print(json.dumps([*sys.modules]))"
    ran = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "POLLUX_URL": f"http://127.0.0.1:{free_port()}", "XDG_CONFIG_HOME": "/nowhere"},
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    assert not loads("--help") & HEAVY


@pytest.mark.parametrize("words", [["submit", "-m", "any", "hi"], ["watch", "any"], ["top"], ["doctor"]])
def test_commands_that_ask_a_server_load_none_of_it(words: list[str]) -> None:
    assert not loads(*words) & PARTS_OF_THE_SERVER


@pytest.mark.parametrize("name", [listed.name for listed in TABLE])
def test_each_command_tells_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"pollux {name}" in printed
    assert (loaded(name).help or "")[:20] in printed


@pytest.mark.parametrize("name", [listed.name for listed in TABLE])
def test_examples_can_be_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "-h"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for example in EXAMPLES[name]:
        assert example in shown
        for words in re.findall(r"pollux ([^|&)]+)", example):
            called, *rest = shlex.split(words)
            command: Any = loaded(called)
            if isinstance(command, TyperGroup):
                command = command.commands[rest.pop(0)]
            command.make_context(called, rest)


def test_commands_in_commands_have_all_that_others_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["webhooks", "create", "-h"]) == 0
    assert "Where it listens." in capsys.readouterr().out


def test_the_help_names_all_commands_with_their_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    words = capsys.readouterr().out.replace("│", " ").split()
    for listed in TABLE:
        assert listed.name in words
        assert set(listed.told.split()) <= set(words)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pollux {__version__}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lst"], "Did you mean 'list'?"),
        (["list", "--limt", "3"], "--limit"),
        (["list", "--limit", "0"], "--limit"),
        (["show"], "ID"),
        (["serve"], "--config"),
        (["check-config"], "name one config file"),
    ],
)
def test_wrong_usage_is_told_and_is_code_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_a_shell_completes_commands_without_loading_them(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import sys; from server.cli import main; sys.exit(main())"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "_POLLUX_COMPLETE": "complete_bash", "COMP_WORDS": "pollux wa", "COMP_CWORD": "1"},
    )
    assert ran.stdout.split() == ["wait", "watch"], ran.stderr
