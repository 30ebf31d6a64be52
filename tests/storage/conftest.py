"""The storage suite runs on the embedded Valkey, and on the system's Redis where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from storage import Store, open_store
from tests.support.keys import leaked_keys
from tests.support.servers import running_redis

SERVERS = ["given"] if os.environ.get("POLLUX_TEST_REDIS") else ["embedded", "redis-server"]


@pytest.fixture(scope="session", params=SERVERS)
def store_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that all of this suite shares."""
    if request.param == "redis-server":
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("there is no redis-server on the PATH")
        with running_redis(binary) as url:
            yield url
    else:
        yield request.getfixturevalue("store_server")  # what the other suites have


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
