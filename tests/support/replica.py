"""Pollux for tests: replicas in this process or as processes of their own, and clients for them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import orjson
import yaml
from openai import AsyncOpenAI

from server.api.context import Context
from server.config import parse_config
from server.process.app import running
from server.process.assembly import Role
from server.system.sockets import bound
from tests.support.nursery import AVAILABLE, Forked, fork
from tests.support.sdk import new_sdk
from tests.support.waiting import wait_until

MASTER_KEY = "sk-test-master-0000"
ALICE, BOB = "sk-test-alice-1111", "sk-test-bob-2222"

CACHED, NATIVE = "gpt-5.2", "o4-mini-deep-research"
"""The models of `make_config`, by how their background requests are served."""


def make_config(upstream: str, *, api_key: str = "sk-upstream-secret", **pollux: Any) -> dict[str, Any]:
    """A config as a LiteLLM user would have it: one cached and one native model at this upstream, two keys."""

    def entry(name: str) -> dict[str, Any]:
        return {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": upstream, "api_key": api_key},
        }

    return {
        "model_list": [entry(CACHED), entry(NATIVE)],
        "litellm_settings": {
            "cache": True,
            "responses": {
                "background_mode": {
                    "polling_via_cache": ["openai"],
                    "native_background_mode": [NATIVE],
                    "ttl": 600,
                }
            },
        },
        "general_settings": {"master_key": MASTER_KEY},
        "pollux": {
            "keys": [{"name": "alice", "key": ALICE}, {"name": "bob", "key": BOB}],
            "drain_grace_s": 0,
            **pollux,
        },
    }


@dataclass(frozen=True)
class Replica:
    """One running Pollux."""

    url: str
    """`http://127.0.0.1:PORT`, without a path."""
    context: Context | None = None
    """Its insides, where it runs in this process."""
    process: asyncio.subprocess.Process | Forked | None = None

    def client(self, key: str = ALICE, **options: Any) -> AsyncOpenAI:
        """The official SDK, pointed here. It does not retry on its own unless told so."""
        return new_sdk(f"{self.url}/v1", key, **options)

    def http(self, key: str | None = ALICE) -> aiohttp.ClientSession:
        """A plain client, pointed at `/v1/`."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return aiohttp.ClientSession(f"{self.url}/v1/", headers=headers)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        await self.process.wait()


@asynccontextmanager
async def running_replica(
    config: dict[str, Any],
    store_url: str,
    *,
    environ: Mapping[str, str] = MappingProxyType({}),
    role: Role = Role.ALL,
) -> AsyncIterator[Replica]:
    """A replica in this process, on a free port. `environ` is what the config's `os.environ/NAME` stand for."""
    parsed = parse_config({**config, "pollux": {**config["pollux"], "store": store_url}}, environ=environ)
    with bound("127.0.0.1", 0) as sockets:
        async with running(parsed, sockets, role) as (process, _):
            yield Replica(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", process.live.now)


MAIN = "import runpy; runpy.run_module('server', run_name='__main__', alter_sys=True)"
"""Runs the program that stands where the process does, which may be another version."""


@asynccontextmanager
async def replica_process(
    config: dict[str, Any],
    store_url: str,
    folder: Path,
    *,
    before: str = "",
    port: int = 0,
    tree: Path | None = None,
    forked: bool = True,
) -> AsyncIterator[Replica]:
    """A replica as a process of its own, ready to serve. Killed at the end, if it still runs.

    `before` is Python code that the process runs first: it can set what is no part of the config. `tree` is where it
    finds the code of Pollux, if not where the tests have theirs. Whose memory or command line counts is not `forked`.
    """
    port = port or free_port()
    file = folder / f"config-{port}.yaml"
    file.write_text(yaml.safe_dump({**config, "pollux": {**config["pollux"], "store": store_url}}))
    words = ("serve", "--config", str(file), "--port", str(port))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("POLLUX_")}
    log = folder / f"replica-{port}.log"
    process: asyncio.subprocess.Process | Forked
    if forked and tree is None and AVAILABLE:
        process = await fork(words, environ, log, before)
    else:
        process = await _started(words, environ, log, before, tree)
    replica = Replica(f"http://127.0.0.1:{port}", process=process)
    try:
        await wait_until(lambda: is_ready(replica), timeout_s=60, what="the replica is ready")
        yield replica
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _started(
    words: Sequence[str], environ: Mapping[str, str], log: Path, before: str, tree: Path | None
) -> asyncio.subprocess.Process:
    program = ("-c", f"{before}\n{MAIN}") if before else ("-m", "server")
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *program, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=tree,
            env=environ,
        )


async def create(replica: Replica, text: str, model: str = CACHED, **body: Any) -> str:
    """Create a background response as alice, hang up, and return its id."""
    async with replica.http() as http:
        answer = await http.post("responses", json={"model": model, "input": text, "background": True, **body})
        assert answer.status == 200, await answer.text()
        if body.get("stream"):
            opening = await answer.content.readuntil(b"\n\n")
            created: dict[str, Any] = orjson.loads(opening.split(b"\ndata: ")[1])["response"]
        else:
            created = await answer.json()
        answer.close()
        response_id: str = created["id"]
        return response_id


async def with_output(replica: Replica, response_id: str) -> dict[str, Any]:
    """The response as soon as the first of its output has arrived."""
    async with replica.http() as http:
        answer = await http.get(f"responses/{response_id}")
        while not (response := await answer.json())["output"]:
            assert response["status"] in ("queued", "in_progress"), response
            answer = await http.get(f"responses/{response_id}", params={"wait": "20", "after": answer.headers["ETag"]})
        made: dict[str, Any] = response
        return made


async def ended(http: aiohttp.ClientSession, response_id: str) -> dict[str, Any]:
    """The response once it is over, as a patient client waits for it: told 503, it asks again when it was told to."""
    while True:
        answer = await http.get(f"responses/{response_id}?wait=40")
        if answer.status == 503:
            assert answer.headers["Retry-After"]
            await asyncio.sleep(0.2)
            continue
        assert answer.status == 200, await answer.text()
        response: dict[str, Any] = await answer.json()
        if response["status"] not in ("queued", "in_progress"):
            return response


async def all_complete(http: aiohttp.ClientSession, ids: Iterable[str]) -> list[dict[str, Any]]:
    """All of them, in order."""
    responses = await asyncio.gather(*(ended(http, response_id) for response_id in ids))
    assert {response["status"] for response in responses} == {"completed"}, responses
    return responses


async def is_ready(replica: Replica) -> bool:
    assert replica.process is None or replica.process.returncode is None, "the replica ended"
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{replica.url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
