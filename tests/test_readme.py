"""The examples of the README and its pages, run as written: only the ports are others, and the clone is this one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from server.api.openapi.document import document
from server.cli.commands import TABLE, loaded
from server.cli.settings import NAMES
from server.cli.trouble import Code
from tests.support.pages import section
from tests.support.replica import Replica, create, free_port, is_ready, make_config, running_replica
from tests.support.waiting import wait_until

PORT, SIMULATOR_PORT, RECEIVER_PORT = 4000, 4010, 4020
in_one_loop = pytest.mark.asyncio(loop_scope="module")
"""For tests of what was started for all of them."""


def examples(title: str, language: str) -> list[str]:
    """The code blocks of one section, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Place:
    """A folder in which the README's commands find what they need."""

    folder: Path
    ports: dict[int, int]

    def written_for(self, example: str) -> str:
        for written, free in self.ports.items():
            example = example.replace(f"127.0.0.1:{written}", f"127.0.0.1:{free}")
            example = example.replace(f'"127.0.0.1", {written}', f'"127.0.0.1", {free}')
        return example

    async def run(self, *command: str) -> str:
        """What a program prints that ends well."""
        process = await asyncio.create_subprocess_exec(*command, cwd=self.folder, stdout=asyncio.subprocess.PIPE)
        printed, _ = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0
        return printed.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """The second step of the start is done: simulator and Pollux run."""
    folder = tmp_path_factory.mktemp("start")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    found = Place(folder, {PORT: free_port(), SIMULATOR_PORT: free_port()})
    [config] = examples("Five-minute start", "yaml")
    (folder / "config.yaml").write_text(found.written_for(config))
    async with serving(found):
        yield found


@asynccontextmanager
async def serving(place: Place) -> AsyncIterator[None]:
    commands = examples("Five-minute start", "sh")[2]
    for command, port in (("simulate", place.ports[SIMULATOR_PORT]), ("serve", place.ports[PORT])):
        commands = commands.replace(f"pollux {command} ", f"pollux {command} --port {port} ")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLLUX_")}
    environment["XDG_DATA_HOME"] = str(place.folder / "data")
    with (place.folder / "log").open("wb") as log:
        shell = await asyncio.create_subprocess_exec(
            # The shell outlives the signal, which interrupts its `wait`, until both have ended.
            *("sh", "-ec", f"trap : TERM\n{commands}\nwait || wait"),
            cwd=place.folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        pollux = Replica(f"http://127.0.0.1:{place.ports[PORT]}")
        await wait_until(lambda: is_ready(pollux), timeout_s=20, what="Pollux is ready")
        await wait_until(lambda: listens(place.ports[SIMULATOR_PORT]), timeout_s=20, what="the simulator is ready")
        yield
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        await asyncio.wait_for(shell.wait(), 20)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def test_the_start_begins_with_a_clone_and_what_it_needs() -> None:
    words = section("Five-minute start").partition("```")[0]
    for needed in ("python3", "python3-venv", "make", "git"):
        assert f" {needed}" in words
    first = examples("Five-minute start", "sh")[0].splitlines()
    assert first[0].startswith("git clone ")
    assert [line.split("#")[0].strip() for line in first[1:]] == ["cd pollux", "make run"]


@in_one_loop
async def test_the_five_minute_start_shows_an_answer_that_grows(place: Place) -> None:
    [program] = examples("Five-minute start", "python")
    printed = await place.run(sys.executable, "-c", place.written_for(program))
    first, *states = printed.splitlines()
    assert first.startswith("litellm_poll_")
    texts = [state.partition(" ")[2] for state in states]
    assert states[-1].startswith("completed You said: Tell me a bedtime story about a unicorn.")
    assert len(texts[-1].split()) == 40
    assert len(set(texts)) > 10
    assert all(after.startswith(before) for before, after in pairwise(texts))

    if shutil.which("curl"):
        in_shell = await place.run("sh", "-ec", place.written_for(examples("Five-minute start", "sh")[3]))
        assert '"status":"completed"' in in_shell

    log = (place.folder / "log").read_text()
    assert "background: cached" in log
    assert (
        f"simulating Responses, Chat Completions and Messages at http://127.0.0.1:{place.ports[SIMULATOR_PORT]}/v1"
        in log
    )
    assert "[[words=40]]" in log


@in_one_loop
async def test_the_examples_of_waiting_and_streaming_run(place: Place) -> None:
    [program] = examples("Streaming", "python")
    printed = await place.run(sys.executable, "-c", place.written_for(program))
    assert 5 < len(printed.split()) < 30, "the rest of the text"
    at_once = await place.run(sys.executable, "-c", place.written_for(examples("Waiting", "python")[1]))
    assert [line.split()[1] for line in at_once.splitlines()] == ["completed", "completed", "cancelled"]
    [in_ruby] = examples("Waiting", "ruby")
    if shutil.which("ruby"):
        states = (await place.run("ruby", "-e", place.written_for(in_ruby))).splitlines()
        assert len(states) > 10
        assert states[-1].count(" ") >= 29


@in_one_loop
async def test_the_example_of_a_priority_runs(place: Place) -> None:
    [program] = examples("Priorities", "python")
    assert await place.run(sys.executable, "-c", place.written_for(program)) == "queued\n"


@in_one_loop
async def test_the_examples_of_status_events_run(place: Place) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    [in_shell] = examples("Status events", "sh")
    printed = await place.run("sh", "-ec", place.written_for(in_shell))
    assert printed.count("event: response.completed") == 1

    [in_python], [in_browser] = examples("Status events", "python"), examples("Status events", "js")
    await hears(place, in_shell, sys.executable, "-c", place.written_for(in_python))
    if node := shutil.which("node"):
        script = place.folder / "events.mjs"
        script.write_text(place.written_for(in_browser))
        await hears(place, in_shell, node, str(script))


async def test_the_example_of_usage_runs(place: Place) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    [in_shell], [shown] = examples("Usage", "sh"), examples("Usage", "json")
    await place.run(sys.executable, "-c", place.written_for(examples("Priorities", "python")[0]))

    async def told() -> list[dict[str, Any]]:
        report = json.loads(await place.run("sh", "-ec", place.written_for(in_shell)))
        assert report.keys() == json.loads(shown).keys()
        rows: list[dict[str, Any]] = report["data"]
        return rows

    await wait_until(told, timeout_s=20, what="the response has ended, and is counted")
    row = (await told())[-1]
    [row_shown] = json.loads(shown)["data"]
    assert row.keys() == row_shown.keys()
    assert (row["model"], row["cost"]) == ("gpt-5.2", None)
    assert row["requests"] > 0
    cached = row_shown["cached_input_tokens"]
    cost = (row_shown["input_tokens"] - cached) * 1.25 + cached * 0.125 + row_shown["output_tokens"] * 10
    assert row_shown["cost"] == cost / 1e6, "by the prices in the text"


@in_one_loop
async def test_the_description_is_where_it_is_said_to_be(place: Place) -> None:
    [example] = examples("API description", "sh")
    await place.run("sh", "-ec", place.written_for(example))
    assert json.loads((place.folder / "openapi.json").read_bytes()) == document()


@in_one_loop
async def test_the_examples_of_the_command_line_run(place: Place) -> None:
    [example] = examples("Command line", "sh")
    (place.folder / "README.md").write_text("A whole README.")
    words = example.replace("pollux ", ".venv/bin/pollux ")
    printed = await place.run("sh", "-ec", place.written_for(words))
    assert printed.count("You said: A bedtime story, please.") == 1
    assert "order=17" in printed
    assert " is fine" in printed
    last = json.loads(printed.splitlines()[-1])
    assert "Say that in French." in json.dumps(last["output"])
    assert "A whole README." in json.dumps(last["output"])
    found = tomllib.loads(examples("Command line", "toml")[0])
    assert {"url", "key", "model", "profiles"} == found.keys() <= NAMES.keys()


def test_the_table_of_commands_has_each_and_that_of_exit_codes_too() -> None:
    text = section("Command line")
    rows = re.findall(r"^\| (`.*?`) \| ", text, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([a-z-]+)", row)]
    assert sorted(named) == sorted(listed.name for listed in TABLE)
    for row in rows:
        for option in re.findall(r"`(--[a-z-]+)", row):
            assert option in _help_of(re.findall(r"`([a-z-]+)", row)[0])
    assert [int(code) for code in re.findall(r"^\| (\d+) \| ", text, re.MULTILINE)] == [*Code]


def _help_of(name: str) -> str:
    return " ".join(option for param in loaded(name).params for option in param.opts)


async def hears(place: Place, in_shell: str, *command: str) -> None:
    """A subscriber is told of responses that are created while it listens."""
    subscriber = await asyncio.create_subprocess_exec(*command, cwd=place.folder, stdout=asyncio.subprocess.PIPE)
    assert subscriber.stdout is not None
    try:
        async with asyncio.timeout(40):
            told = asyncio.create_task(subscriber.stdout.readline())
            while not told.done():  # it may not listen yet
                await place.run("sh", "-ec", place.written_for(in_shell))
            assert (await told).startswith(b"response.")
    finally:
        subscriber.kill()
        await subscriber.wait()


async def test_the_receivers_of_webhooks_take_what_pollux_sends(simulator: str, store_url: str, tmp_path: Path) -> None:
    [in_python], [in_node] = examples("Webhooks", "python"), examples("Webhooks", "js")
    [secret] = set(re.findall(r"whsec_[A-Za-z0-9+/=]+", in_python + in_node))
    await takes_webhooks(simulator, store_url, secret, in_python, sys.executable, "-c")
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        install = ("install", "--silent", "--no-audit", "--no-fund", "openai")
        installed = await asyncio.create_subprocess_exec(npm, *install, cwd=tmp_path)
        assert await installed.wait() == 0
        await takes_webhooks(simulator, store_url, secret, in_node, node, "--input-type=module", "-e", cwd=tmp_path)


async def takes_webhooks(
    simulator: str, store_url: str, secret: str, program: str, *command: str, cwd: Path | None = None
) -> None:
    port = free_port()
    program = program.replace(str(RECEIVER_PORT), str(port))
    receiver = await asyncio.create_subprocess_exec(*command, program, cwd=cwd, stdout=asyncio.subprocess.PIPE)
    assert receiver.stdout is not None
    endpoint = {"url": f"http://127.0.0.1:{port}/webhook", "secret": secret}
    config = make_config(simulator, webhooks=[endpoint], webhook_allow_private=True)
    try:
        await wait_until(lambda: listens(port), timeout_s=40, what="the receiver listens")
        async with running_replica(config, store_url) as pollux, asyncio.timeout(40):
            response_id = await create(pollux, "hi")
            assert (await receiver.stdout.readline()).decode().split() == ["response.completed", response_id]
    finally:
        receiver.kill()
        await receiver.wait()
