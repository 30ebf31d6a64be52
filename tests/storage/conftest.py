"""The storage suite runs on the embedded Valkey, on a cluster, and on the system's Redis where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from storage import Store, open_store
from tests.support.cluster import running_cluster
from tests.support.keys import leaked_keys
from tests.support.servers import running_redis

SERVERS = ["given"] if os.environ.get("POLLUX_TEST_REDIS") else ["embedded", "redis-server", "cluster"]


@pytest.fixture(scope="session", params=SERVERS)
def store_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server, or cluster, that all of this suite shares."""
    if request.param == "redis-server":
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("there is no redis-server on the PATH")
        with running_redis(binary) as url:
            yield url
    elif request.param == "cluster":
        with running_cluster() as servers:
            yield servers.url
    else:
        yield request.getfixturevalue("store_server")  # what the other suites have


@pytest.fixture(autouse=True)
def only_where_it_can_be(request: pytest.FixtureRequest) -> None:
    """What tests marked `one_server` break or count is that of one server, or they hear its own keyspace."""
    if request.node.get_closest_marker("one_server") and request.getfixturevalue("store_server").startswith("cluster:"):
        pytest.skip("the store is a cluster")


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """The store, open and empty."""
    async with open_store(store_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_key_stays_for_ever(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did: what is over has a time to live."""
    if "admin" not in request.fixturenames:
        yield
        return
    admin = request.getfixturevalue("admin")
    yield
    assert leaked_keys(admin) == []
