"""The server that POLLUX_TEST_REDIS names, shared by the workers of a parallel run.

Each worker has a database of its own, and empties it again and again. What a server has only once (its settings, its
clients, its memory) can't be divided: a test that changes or counts that has the server to itself for its time.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit


def database_of(server_url: str, worker: int) -> str:
    """The URL of this worker's own database: the named one for worker 0, then the next ones.

    A cluster has one database only: there the URL is the same for all.
    """
    parts = urlsplit(server_url)
    if parts.scheme == "unix":
        options = dict(parse_qsl(parts.query))
        return f"unix://{parts.path}?{urlencode({**options, 'db': int(options.get('db', 0)) + worker})}"
    if parts.scheme in ("redis", "rediss"):
        return parts._replace(path=f"/{int(parts.path.strip('/') or 0) + worker}").geturl()
    return server_url


def is_divided(server_url: str) -> bool:
    """Whether `database_of` gives each worker another database."""
    return database_of(server_url, 0) != database_of(server_url, 1)


@contextmanager
def turn(server_url: str, *, alone: bool) -> Iterator[None]:
    """Use the server for the length of the block, beside others or alone. Across processes, and nobody starves."""
    name = hashlib.sha256(server_url.encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"pollux-test-{name}"
    with place.with_suffix(".door").open("a") as door, place.with_suffix(".room").open("a") as room:
        # Whoever wants to be alone waits in the door, so that nobody else enters meanwhile.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
