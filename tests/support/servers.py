"""A Redis as the system has it, and servers that are set otherwise for a while."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

RUNBOOK = Path(__file__).parents[2] / "deploy" / "README.md"


@contextmanager
def running_redis(binary: str, **settings: str) -> Iterator[str]:
    """Its URL. Its directory vanishes with it. Underscores in settings stand for dashes."""
    # Not pytest's own directory, whose name may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="pollux-redis-") as directory:
        socket = Path(directory) / "redis.sock"
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "dir": directory,
            "save": "",
            "notify-keyspace-events": "Kgxe",
            "repl-diskless-sync-delay": "0",  # else a replica waits five seconds for others
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        command = [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
            try:
                _until_it_answers(server, socket)
                yield f"unix://{socket}"
            finally:
                server.kill()


def _until_it_answers(server: subprocess.Popen[bytes], socket: Path) -> None:
    deadline = time.monotonic() + 10
    with redis.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0)) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                assert server.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.01)


@contextmanager
def configured(admin: redis.Redis, **settings: Any) -> Iterator[None]:
    """The server, set otherwise for a while. Underscores stand for dashes."""
    values = {name.replace("_", "-"): value for name, value in settings.items()}
    before: Any = admin.config_get(*values)
    try:
        for name, value in values.items():
            admin.config_set(name, value)
        yield
    finally:
        for name in values:
            admin.config_set(name, before[name])


def follows(replica: redis.Redis) -> bool:
    """Whether a replica has all that its primary has."""
    about: Any = replica.info("replication")
    return bool(about["master_link_status"] == "up")


def documented_rights() -> list[str]:
    """The rule that the runbook gives to operators."""
    (rule,) = re.findall(r"^ACL SETUSER pollux (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    return [word for word in rule.split() if word not in ("on", ">SECRET")]
