"""The load balancers of `deploy/`, as processes of their own: the shipped configurations, on other addresses."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.replica import free_port
from tests.support.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVER = re.compile(r"^( +server .*)127\.0\.0\.1:400[01](.*)$", re.MULTILINE)


@asynccontextmanager
async def running_balancer(kind: str, replicas: Sequence[int], folder: Path) -> AsyncIterator[str]:
    """nginx or haproxy before the replicas on these ports; gives its URL. Skips the test where it is not installed."""
    binary = shutil.which(kind)
    if binary is None:
        pytest.skip(f"there is no {kind} here: apt-get install {kind}")
    port = free_port()
    options: tuple[str, ...]
    if kind == "nginx":
        config = _nginx(replicas, port, folder)
        options = ("-p", str(folder), "-c", str(config), "-e", "stderr", "-g", "daemon off; pid nginx.pid;")
    else:
        config = _haproxy(replicas, port, folder)
        options = ("-db", "-f", str(config))
    log = folder / f"{kind}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            binary, *options, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:

        async def listens() -> bool:
            assert process.returncode is None, log.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return False
            writer.close()
            return True

        await wait_until(listens, what=f"{kind} listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _nginx(replicas: Sequence[int], port: int, folder: Path) -> Path:
    text = (DEPLOY / "nginx.conf").read_text().replace("listen 8080", f"listen 127.0.0.1:{port}")
    # Its files lie in this folder, so that anybody can run it.
    temporary = "".join(
        f"{what}_temp_path {folder}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\naccess_log off;\n{temporary}", 1)
    text = text.replace("worker_rlimit_nofile 65536;", "").replace("worker_connections 32000", "worker_connections 512")
    return _written(folder / "nginx.conf", _on(text, replicas))


def _haproxy(replicas: Sequence[int], port: int, folder: Path) -> Path:
    text = (DEPLOY / "haproxy.cfg").read_text().replace("bind :8080", f"bind 127.0.0.1:{port}")
    # So that a drain need not be waited for as long.
    text = text.replace("maxconn 16384", "maxconn 500").replace("check inter 1s", "check inter 200ms")
    return _written(folder / "haproxy.cfg", _on(text, replicas))


def _on(text: str, replicas: Sequence[int]) -> str:
    """The first server of each list, once for each replica, and no other."""

    def one_for_each(found: re.Match[str]) -> str:
        if ":4001" in found[0]:
            return ""
        before, after = found[1], found[2]
        lines = (f"{before.replace('one', f'replica-{port}')}127.0.0.1:{port}{after}" for port in replicas)
        return "\n".join(lines)

    return SERVER.sub(one_for_each, text)


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file
