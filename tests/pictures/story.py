"""What the film shows: a response that is sent off, watched while its server is killed, and found among the others."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.pictures.svg import as_svg
from tests.pictures.terminal import Terminal
from tests.support.replica import ALICE, CACHED, Replica, make_config, replica_process
from tests.support.shell import OURS
from tests.support.waiting import wait_until

COLUMNS, ROWS = 92, 21
TITLE = "pollux submit, watch and list: a response that outlives its server"
ASKED = "A bedtime story about a unicorn."
PROMPT = f"{ASKED} [[words=70]] [[rate=14]]"
OTHERS = (
    ("Summarize the quarter. [[words=30]]", {"team": "reports"}),
    ("Translate the contract. [[fail=1]]", {"team": "legal"}),
    ("Read the whole archive. [[words=3000]] [[rate=5]]", {"team": "search"}),
)
STILL_S = 5.0


async def filmed(simulator: str, store_url: str, folder: Path, port: int) -> str:
    """The film as SVG. `port` is that of the server, which is seen."""
    config = make_config(simulator, lease_s=2)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environ |= {
        "TERM": "xterm-256color",
        "XDG_CONFIG_HOME": str(folder),
        "POLLUX_URL": f"http://127.0.0.1:{port}",
        "POLLUX_API_KEY": ALICE,
        "POLLUX_MODEL": CACHED,
    }
    terminal = Terminal(COLUMNS, ROWS, environ)
    async with replica_process(config, store_url, folder, port=port) as first:
        await _others(first)
        terminal.tell("the server: running")
        response_id = await _submitted(terminal)
        await terminal.type(f"pollux watch {response_id}")
        watching = asyncio.create_task(terminal.run(_pollux("watch", response_id)))
        await wait_until(lambda: "You said" in terminal.text, timeout_s=20, what="the text is seen")
        await wait_until(lambda: _has_grown(first, response_id), timeout_s=20, what="the text has grown")
        await first.kill()
    terminal.tell("the server: kill -9, and started again")
    async with replica_process(config, store_url, folder, port=port):
        assert await watching == 0
        terminal.tell("the server: running")
        await terminal.type("pollux list")
        assert await terminal.run(_pollux("list")) == 0
    return as_svg(terminal.film(STILL_S), COLUMNS, ROWS, TITLE)


async def _others(replica: Replica) -> None:
    """What else is in the list."""
    async with replica.client() as sdk:
        for text, metadata in OTHERS:
            await sdk.responses.create(model=CACHED, input=text, background=True, metadata=metadata)


async def _submitted(terminal: Terminal) -> str:
    await terminal.type(f'pollux submit "{PROMPT}"')
    assert await terminal.run(_pollux("submit", PROMPT)) == 0
    return next(word for word in terminal.text.split() if word.startswith("litellm_poll_"))


async def _has_grown(replica: Replica, response_id: str) -> bool:
    """Whether a good part of the text is there."""
    async with replica.client() as sdk:
        return len((await sdk.responses.retrieve(response_id)).output_text.split()) > 25


def _pollux(*words: str) -> list[str]:
    return [sys.executable, "-m", "server", *words]
