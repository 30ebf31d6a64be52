"""What all tests stand on: a real server as the store, a simulated provider, a replica of Pollux.

Every test runs on the embedded Valkey, or on the server that POLLUX_TEST_REDIS names: on one of its databases for each
worker of the run, which is emptied again and again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest
import redis
import uvloop
from openai import AsyncOpenAI

from storage.embedded import _locate
from tests.support.described import Watch, watching
from tests.support.given import database_of, is_divided, turn
from tests.support.recordings import write_recordings
from tests.support.replica import Replica, make_config, running_replica
from tests.support.upstreams import running_simulator

HOLDER = Path(__file__).parent / "support" / "hold_embedded.py"
GIVEN = os.environ.get("POLLUX_TEST_REDIS")
RECORDINGS = Path(os.environ.get("POLLUX_RECORDINGS", Path(__file__).parents[2] / "shared" / "recordings"))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the one server that all tests of this worker share."""
    if GIVEN:
        yield database_of(GIVEN, int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))
        return
    directory = tmp_path_factory.mktemp("store")
    # One process that needs the server all the time, so that it does not end with each test.
    with subprocess.Popen(
        [sys.executable, str(HOLDER), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HOLDER.parents[2],
        env={**os.environ, "PYTHONPATH": str(HOLDER.parents[2])},
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "loaded\n"
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "ready\n"
        yield f"embedded://{directory}"
        holder.stdin.close()
        holder.wait(20)


@pytest.fixture(scope="session")
def watch() -> Iterator[Watch]:
    with watching() as watch:
        yield watch


@pytest.fixture(autouse=True)
def answers_as_described(watch: Watch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test in which a replica has answered otherwise than `/openapi.json` says."""
    yield
    complaints, watch.complaints = watch.complaints, []
    if request.node.get_closest_marker("undescribed") is None:
        assert complaints == [], complaints[0]


@pytest.fixture(autouse=True)
def turn_on_the_given_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Beside the tests of other workers, unless this one changes or counts what all databases share."""
    if not GIVEN or "store_server" not in request.fixturenames:
        yield
        return
    alone = request.node.get_closest_marker("whole_server") is not None or not is_divided(GIVEN)
    with turn(GIVEN, alone=alone):
        yield


@pytest.fixture
def admin(store_server: str) -> Iterator[redis.Redis]:
    """A plain client of the store, for looking behind the curtain and for breaking things by hand."""
    if store_server.startswith("cluster://"):
        # The same commands, for all that the tests ask. One node knows the others.
        client = cast("redis.Redis", redis.RedisCluster.from_url(_node_url(store_server)))
    else:
        client = redis.Redis.from_url(plain_url(store_server))
    yield client
    client.close()


def _node_url(cluster_url: str) -> str:
    return f"redis://{urlsplit(cluster_url).netloc.partition(',')[0]}"


@pytest.fixture
def store_url(store_server: str, admin: redis.Redis) -> str:
    """The store, empty."""
    admin.flushdb()
    return store_server


def plain_url(store_url: str) -> str:
    """What redis-py understands: of an embedded server, its socket."""
    parts = urlsplit(store_url)
    return f"unix://{_locate(Path(parts.path)).socket_path}" if parts.scheme == "embedded" else store_url


@pytest.fixture
async def simulator() -> AsyncIterator[str]:
    async with running_simulator() as base_url:
        yield base_url


@pytest.fixture
async def pollux(simulator: str, store_url: str) -> AsyncIterator[Replica]:
    """One replica in front of the simulator."""
    async with running_replica(make_config(simulator), store_url) as replica:
        yield replica


@pytest.fixture
async def client(pollux: Replica) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK as alice."""
    async with pollux.client() as sdk:
        yield sdk


@pytest.fixture(scope="session")
def our_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with those of our own writing."""
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder)
    return folder


@pytest.fixture(scope="session")
def real_recordings() -> Path:
    """The folder with recordings of real traffic, where somebody has some."""
    if not RECORDINGS.is_dir():
        pytest.skip("no recordings of real traffic here: set POLLUX_RECORDINGS to their folder")
    return RECORDINGS


@pytest.fixture(params=["our_recordings", "real_recordings"])
def recordings(request: pytest.FixtureRequest) -> Path:
    """Each folder in turn."""
    folder: Path = request.getfixturevalue(request.param)
    return folder
