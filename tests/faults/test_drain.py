"""How a process leaves: in which order, and what its clients see of it. `tests/deploy` has it behind load balancers."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from server.system.sockets import bound, turn_away
from tests.support.commands import Command, command
from tests.support.replica import ALICE, CACHED, MAIN, Replica, create, make_config, replica_process, with_output
from tests.support.scraping import somebody_waits
from tests.support.sse import read_stream
from tests.support.waiting import wait_until

KEY = {"Authorization": f"Bearer {ALICE}"}
SLOW = "[[words=20]] [[delay_ms=100]]"
JOB = json.dumps({"model": CACHED, "input": SLOW, "background": True}).encode()


@asynccontextmanager
async def leaving(
    simulator: str, store_url: str, folder: Path, *options: str, **settings: Any
) -> AsyncIterator[tuple[Command, Replica, aiohttp.ClientSession]]:
    """A process that a client has used, before it is told to end."""
    async with command(folder, make_config(simulator, **settings), store_url, *options) as pollux:
        replica = await pollux.serve()
        async with aiohttp.ClientSession(replica.url, headers=KEY) as http:
            yield pollux, replica, http


async def refuses(replica: Replica) -> bool:
    """Whether nothing listens any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(replica.url).port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_during_the_grace_it_is_not_ready_but_serves_and_closes_each_connection(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with leaving(simulator, store_url, tmp_path, drain_grace_s=60) as (pollux, replica, http):
        assert (await http.get("/readyz")).headers.get("Connection") != "close"
        pollux.process.send_signal(signal.SIGTERM)
        await wait_until(lambda: pollux.logged("leaving in 60 s"), what="it has heard")
        for path, status in (("/readyz", 503), ("/livez", 200), ("/v1/models", 200)):
            answer = await http.get(path)
            assert (answer.status, answer.headers["Connection"]) == (status, "close")
        one = await create(replica, "now [[words=2]]")
        assert (await (await http.get(f"/v1/responses/{one}?wait=20")).json())["status"] == "completed"
        pollux.process.send_signal(signal.SIGTERM)
        assert await pollux.ended() == 0, "a second signal ends the grace"


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
async def test_who_waits_at_the_terminal_waits_for_no_load_balancer(
    options: tuple[str, ...], simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with leaving(simulator, store_url, tmp_path, *options, drain_grace_s=60) as (pollux, _, _):
        pollux.process.send_signal(signal.SIGINT)
        assert await pollux.ended() == 0


async def test_each_of_several_processes_has_the_grace(simulator: str, store_url: str, tmp_path: Path) -> None:
    async with leaving(simulator, store_url, tmp_path, "--workers", "2", drain_grace_s=60) as (pollux, _, http):
        await pollux.serve(2)
        pollux.process.send_signal(signal.SIGTERM)
        await wait_until(lambda: len(pollux.logged("leaving in 60 s")) == 2, what="both have heard")
        assert (await http.get("/readyz")).status == 503
        pollux.process.send_signal(signal.SIGTERM)
        assert await pollux.ended() == 0


async def test_workers_have_no_clients_and_so_no_grace(simulator: str, store_url: str, tmp_path: Path) -> None:
    async with leaving(simulator, store_url, tmp_path, "--role", "worker", drain_grace_s=60) as (pollux, _, _):
        pollux.process.send_signal(signal.SIGTERM)
        assert await pollux.ended() == 0


async def test_when_nothing_listens_any_more_what_is_open_is_served_until_the_runs_have_ended(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with leaving(simulator, store_url, tmp_path) as (pollux, replica, http):
        one = await create(replica, SLOW, stream=True)
        await with_output(replica, one)
        waiting = asyncio.create_task(http.get(f"/v1/responses/{one}?wait=20"))
        stream = await http.get(f"/v1/responses/{one}?stream=true")
        await wait_until(lambda: somebody_waits(replica), what="it waits")
        pollux.process.send_signal(signal.SIGTERM)
        await wait_until(lambda: refuses(replica), what="nothing listens")
        assert (await (await waiting).json())["status"] == "completed"
        assert (await read_stream(stream))[-1]["type"] == "response.completed"
        assert await pollux.ended() == 0


async def test_connections_that_wait_for_a_request_are_closed_and_new_ones_may_still_send_theirs(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with leaving(simulator, store_url, tmp_path) as (pollux, replica, _):
        port = urlsplit(replica.url).port
        used, used_writer = await asyncio.open_connection("127.0.0.1", port)
        used_writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await used.readuntil(b"}")
        new, new_writer = await asyncio.open_connection("127.0.0.1", port)
        pollux.process.send_signal(signal.SIGTERM)
        assert await used.read() == b"", "closed"
        head = f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\nContent-Length: {len(JOB)}"
        new_writer.write(f"{head}\r\n\r\n".encode() + JOB)
        answer = await new.read()
        assert answer.startswith(b"HTTP/1.1 200 OK"), "a create, which another replica will run"
        assert b"\r\nConnection: close\r\n" in answer
        for writer in (used_writer, new_writer):
            writer.close()
        assert await pollux.ended() == 0


@pytest.mark.parametrize(("drain_s", "whole"), [(20.0, True), (0.2, False)])
async def test_a_proxied_stream_has_the_time_of_a_drain_and_is_then_broken_off(
    drain_s: float, whole: bool, simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, drain_s=drain_s)
    impatient = "import server.process.serve; server.process.serve.HANDLERS_END_WITHIN_S = 0.0"
    async with replica_process(config, store_url, tmp_path, before=impatient) as replica, replica.http() as http:
        stream = await http.post("responses", json={"model": CACHED, "input": SLOW, "stream": True})
        replica.signal(signal.SIGTERM)
        if whole:
            assert (await read_stream(stream))[-1]["type"] == "response.completed"
        else:
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.read()
        assert replica.process is not None
        assert await asyncio.wait_for(replica.process.wait(), 10) == 0


def test_a_connection_that_has_begun_is_not_reset_when_its_socket_closes() -> None:
    with bound("127.0.0.1", 0) as (listener,):
        listener.listen(16)
        address = listener.getsockname()
        with socket.create_connection(address) as begun:
            turn_away([listener])
            with socket.socket() as late:
                late.setblocking(False)
                with pytest.raises(BlockingIOError):
                    late.connect(address)
                time.sleep(0.05)
                accepted, _ = listener.accept()
                with accepted, pytest.raises(BlockingIOError):
                    listener.accept()
                begun.sendall(b"x")


# Signals at both ends of a process.

EARLY = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "server.cli":
            os.kill(os.getpid(), signal.NAME)

sys.meta_path.insert(0, Finder())
"""
LATE = """
import atexit, os, signal
atexit.register(os.kill, os.getpid(), signal.NAME)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
async def test_a_signal_before_anything_is_served_ends_the_process_in_order(name: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", EARLY.replace("NAME", name) + MAIN, "serve", "--config", "none.yaml"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert said == b""
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
async def test_a_signal_after_all_is_over_changes_nothing(
    name: str, simulator: str, store_url: str, tmp_path: Path
) -> None:
    before = LATE.replace("NAME", name)
    async with replica_process(make_config(simulator), store_url, tmp_path, before=before) as replica:
        assert replica.process is not None
        replica.signal(signal.SIGTERM)
        assert await asyncio.wait_for(replica.process.wait(), 10) == 0
    (log,) = tmp_path.glob("replica-*.log")
    assert log.read_text().rstrip().endswith("stopped"), "and nothing is said of it"
