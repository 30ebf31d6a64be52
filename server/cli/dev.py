"""`pollux dev`: a provider, a store and Pollux on this machine, to try things with.

One process is the provider and Pollux. The embedded store is another one, as always; a third one does nothing but end
the store, should this process be killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO
from urllib.parse import quote

import aiohttp
import typer
import uvloop
from rich.text import Text

from server import __version__
from server.cli.commands import new_app
from server.cli.failing import told
from server.cli.served import HIGHEST_PORT, Level
from server.cli.settings import dev_file, sendable
from server.cli.terminal import console
from server.cli.trouble import Code, Trouble
from server.config import Config, load_config
from server.logs import configure_logs
from server.process.serve import ServiceBroke, serve
from server.simulator import listening_simulator
from server.system import signals
from server.system.sockets import bound
from storage import default_directory

app = new_app()

HOST = "127.0.0.1"
MODELS = {
    "gpt-5.2": ("openai", "Responses"),
    "claude-sonnet-4-5": ("anthropic", "Messages"),
    "mistral-large": ("mistral", "Chat Completions"),
    "o4-mini-deep-research": ("openai", "Responses, in the provider's own background"),
}
"""The models that are served, each with its provider and the dialect that this one speaks."""
NATIVE = ["o4-mini-deep-research"]
DRAIN_S = 1
LOOK_EVERY_S = 0.02
PARENT_EVERY_S = 0.2
OVERRULING = ("POLLUX_STORE",)
"""Variables of the environment that are meant for a real server, and would go before our config."""


@dataclass(frozen=True)
class Place:
    """What is served where."""

    folder: Path
    port: int
    simulator_port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def page(self) -> str:
        return f"{self.url}/ui/#/key={quote(self.key, safe='')}"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=HIGHEST_PORT, help="The port of Pollux.")] = 4000,
    simulator_port: Annotated[
        int, typer.Option(min=1, max=HIGHEST_PORT, help="The port of the simulated provider.")
    ] = 4010,
    key: Annotated[str, typer.Option(help="The API key, a master key.")] = "sk-1234",
    directory: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="Where config and store are kept; in your user's data, if not said."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget all responses of former times.")] = False,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    log_level: Annotated[Level, typer.Option(help="The least important lines that are logged.")] = Level.INFO,
) -> int:
    """Serve simulated models on this machine, to try things: no account, no Redis, nothing to configure.

    While it runs, the other commands find it by themselves: pollux submit "Hello" -m gpt-5.2 --stream
    """
    configure_logs("console", log_level)
    if (sent := sendable(key)) is None:
        raise Trouble("--key is empty: leave it out, and it is sk-1234", code=Code.USAGE)
    try:
        with told():
            folder = directory.expanduser() if directory else default_directory().with_name("pollux-dev")
        place = Place(folder.absolute(), port, simulator_port, sent)
        with told(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(place, fresh=fresh, browse=browse))
    except Trouble as trouble:
        hints = ["Is it running already? Else choose others: --port, --simulator-port."] * ("in use" in str(trouble))
        raise Trouble(str(trouble), *hints) from None
    except ServiceBroke:
        return Code.FAILED  # the failure was logged
    return Code.FINE


async def _serve(place: Place, *, fresh: bool, browse: bool) -> None:
    with bound(HOST, place.port):  # before anything of another one that runs is touched
        pass
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _held(place.folder / "lock") as lock:
        if lock is None:
            raise Trouble(
                f"pollux dev runs on {place.folder} already", "Beside it: --directory, --port, --simulator-port."
            )
        async with listening_simulator(HOST, place.simulator_port) as base_url:
            config = _prepare(place, base_url, fresh=fresh)
            with _undertaker(place), _found_by_commands(place) as found:
                async with _beside(_announce(place, found=found, browse=browse)), _beside(_end_with(os.getppid())):
                    await serve(config, place.config, HOST, place.port)


@contextmanager
def _held(file: Path) -> Iterator[TextIO | None]:
    """A file of which nobody else has hold as long as the block; None if somebody has. It is freed however we end."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield opened


def _prepare(place: Place, base_url: str, *, fresh: bool) -> Config:
    """Write the config, and read it, so that no variable of the environment overrules it."""
    if fresh and place.store.exists():
        shutil.rmtree(place.store)
    upstream = {"api_base": base_url, "api_key": "sk-simulated"}
    config = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": f"{provider}/{name}", **upstream}}
            for name, (provider, _) in MODELS.items()
        ],
        "litellm_settings": {
            "responses": {"background_mode": {"polling_via_cache": "all", "native_background_mode": NATIVE}}
        },
        "general_settings": {"master_key": place.key},
        "pollux": {
            "store": f"embedded://{quote(str(place.store))}",
            "webhook_allow_private": True,
            "drain_grace_s": 0,
            "drain_s": DRAIN_S,
        },
    }
    place.config.write_text(json.dumps(config, indent=2) + "\n")  # JSON is YAML
    place.config.chmod(0o600)
    for name in OVERRULING:
        os.environ.pop(name, None)
    # The simulator is here, whatever proxy leads elsewhere.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST]))
    return load_config(place.config)


@contextmanager
def _undertaker(place: Place) -> Iterator[None]:
    """End the store should this process be killed. It reads from a pipe that only we hold open; in order, we end it."""
    burying = 'read _; kill "$(cat "$0")"'  # the store's lock says which process it is
    with subprocess.Popen(
        ["sh", "-c", burying, str(place.store / "server.lock")],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _found_by_commands(place: Place) -> Iterator[bool]:
    """Leave the address and the key where the other commands look; unless they find another one that runs already."""
    file = dev_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _held(file) as ours:
        if ours is None:
            yield False
            return
        ours.truncate()
        ours.write(f"url = {json.dumps(place.url)}\nkey = {json.dumps(place.key)}\n")
        ours.flush()
        try:
            yield True
        finally:
            file.unlink(missing_ok=True)


@asynccontextmanager
async def _beside(work: Any) -> AsyncIterator[None]:
    """Something that goes on as long as the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _end_with(parent: int) -> None:
    """End when the process that started us is gone: `make` was killed, and nobody is left to press Ctrl-C."""
    while os.getppid() == parent:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(PARENT_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


async def _announce(place: Place, *, found: bool, browse: bool) -> None:
    """Say what there is, once it is there."""
    async with aiohttp.ClientSession() as http:
        while not await _is_ready(http, place.url):  # noqa: ASYNC110  # it is asked as any client would
            await asyncio.sleep(LOOK_EVERY_S)
    # The terminal was closed: that is the end, and no reload.
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    _print(place, time.monotonic() - signals.STARTED_AT, found=found)
    if browse:
        await asyncio.to_thread(webbrowser.open, place.page)


async def _is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _print(place: Place, took_s: float, *, found: bool) -> None:
    curl = (
        f"curl -sN {place.url}/v1/responses -H 'Authorization: Bearer {place.key}' -H 'Content-Type: application/json'"
        """ -d '{"model": "gpt-5.2", "input": "Hello!", "background": true, "stream": true}'"""
    )
    lines = [
        ("Page", Text(place.page, "bold cyan")),
        ("API", Text.assemble((f"{place.url}/v1", "bold cyan"), "  key ", (place.key, "bold"))),
        *(
            ("Models" if number == 0 else "", Text.assemble(name, (f"  {MODELS[name][1]}", "dim")))
            for number, name in enumerate(MODELS)
        ),
        *([] if found else [("First", Text(f"export POLLUX_URL={place.url} POLLUX_API_KEY={shlex.quote(place.key)}"))]),
        ("Try", Text('pollux submit -m gpt-5.2 "Tell me a story. [[words=80]] [[rate=10]]" --stream')),
        ("", Text("pollux top")),
        ("", Text(curl)),
        ("Kept in", Text.assemble(str(place.folder), ("  --fresh begins anew", "dim"))),
    ]
    out = console()
    out.print(Text.assemble(("\nPollux ", "bold"), __version__, (f"  ready in {took_s:.1f} s\n", "green")))
    for name, text in lines:
        out.print(Text.assemble((f"  {name:<8}", "dim"), text), soft_wrap=True)
    out.print(Text("\nCtrl-C ends all.\n", "dim"))
    sys.stdout.flush()
