"""The first minute of a process: what clients hear before it serves, and how many of them it has room for."""

from __future__ import annotations

import asyncio
import resource
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from server.config.sections import ConfigError
from server.system.files import MOST_FILES, OpenFiles, raise_limit
from tests.conftest import plain_url
from tests.faults.test_processes import state_of
from tests.support.authority import new_authority
from tests.support.commands import Command, command
from tests.support.refusals import refusal
from tests.support.replica import Replica, create, free_port, make_config, replica_process
from tests.support.waiting import wait_until

HEALTH_CHECK = Path(__file__).parents[2] / "deploy" / "healthcheck.py"


async def address_of(running: Command) -> str:
    """Where it listens, which it says before it serves."""
    await wait_until(lambda: running.logged("listening on"), timeout_s=20, what="it listens")
    return str(running.logged("listening on")[0]["message"].split()[2].rstrip(","))


async def test_the_images_health_check_asks_the_process_on_its_own_port(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with command(tmp_path, make_config(simulator), store_url, "--port", str(free_port())) as pollux:
        await pollux.serve()
        for expected in (0, 1):
            check = await asyncio.create_subprocess_exec(sys.executable, str(HEALTH_CHECK), str(pollux.process.pid))
            assert await check.wait() == expected
            pollux.process.send_signal(signal.SIGSTOP)  # it hangs


async def test_litellms_options_for_tls_hold_for_every_process_and_the_health_check_passes(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    files = new_authority(tmp_path)
    tls = ("--ssl_certfile_path", str(files.cert), "--ssl_keyfile_path", str(files.key))
    port = free_port()
    async with command(
        tmp_path, make_config(simulator), store_url, "--port", str(port), "--workers", "2", *tls
    ) as pollux:
        assert (await pollux.serve(2)).url == f"https://127.0.0.1:{port}"
        context = ssl.create_default_context(cafile=str(files.authority))
        for _ in range(8):  # so that both are asked
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
                assert (await http.get(f"https://127.0.0.1:{port}/readyz")).status == 200
        check = await asyncio.create_subprocess_exec(sys.executable, str(HEALTH_CHECK), str(pollux.process.pid))
        assert await check.wait() == 0
        pollux.process.send_signal(signal.SIGTERM)
        assert await pollux.process.wait() == 0


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--role", "worker"), ("--role", "api")])
async def test_while_the_store_is_away_a_start_answers_that_it_lives_and_serves_as_soon_as_it_is_back(
    options: tuple[str, ...], simulator: str, store_url: str, tmp_path: Path
) -> None:
    server = urlsplit(plain_url(store_url))
    if server.scheme != "unix":
        pytest.skip("the given server has no socket file that could be moved")
    with tempfile.TemporaryDirectory(prefix="pollux-") as directory:
        late = Path(directory) / "redis.sock"
        url = f"unix://{late}?{server.query}"
        async with command(tmp_path, make_config(simulator), url, *options) as starting:
            async with aiohttp.ClientSession(await address_of(starting)) as http:
                assert (await http.get("/livez")).status == 200
                for path in ("/readyz", "/v1/models", "/v1/responses/litellm_poll_x", "/nothing/is/here"):
                    answer = await http.get(path)
                    assert answer.headers["Retry-After"]
                    refused = await refusal(answer)
                    assert refused.fields == (503, "server_error", "service_unavailable", None)
                await wait_until(lambda: starting.logged("waiting for the store"), what="it says for what it waits")
                late.symlink_to(server.path)
                replica = await starting.serve()
                assert (await http.get("/readyz")).status == 200
            if "worker" not in options:
                await create(replica, "hi")


async def test_clients_of_a_start_that_is_not_slow_are_kept_waiting_and_then_served(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    server = urlsplit(plain_url(store_url))
    if server.scheme != "unix":
        pytest.skip("the given server has no socket file that could be moved")
    port = free_port()

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    with tempfile.TemporaryDirectory(prefix="pollux-") as directory:
        late = Path(directory) / "redis.sock"
        patient = "import server.process.app; server.process.app.QUIET_START_S = 60.0"
        url = f"unix://{late}?{server.query}"
        starting = replica_process(make_config(simulator), url, tmp_path, before=patient, port=port)
        begun = asyncio.create_task(starting.__aenter__())
        try:
            await wait_until(listens, timeout_s=20, what="it listens")
            created = asyncio.create_task(create(Replica(f"http://127.0.0.1:{port}"), "hi"))
            (log,) = tmp_path.glob("replica-*.log")
            await wait_until(lambda: "waiting for the store" in log.read_text(), what="it has no store yet")
            assert not created.done()
            late.symlink_to(server.path)
            assert await created
        finally:
            await begun
            await starting.__aexit__(None, None, None)


async def test_a_store_that_can_never_be_used_ends_the_start(simulator: str, tmp_path: Path) -> None:
    async def refuse_password(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n" * 4)
        writer.close()

    async with await asyncio.start_server(refuse_password, "127.0.0.1", 0) as strict:
        port = strict.sockets[0].getsockname()[1]
        async with command(tmp_path, make_config(simulator), f"redis://:wrong@127.0.0.1:{port}") as failing:
            assert await failing.ended() == 1
            assert "pollux: the store refuses these credentials" in failing.output.read_text()


# Open files.


def test_a_process_that_has_room_for_its_jobs_and_some_clients_may_start() -> None:
    OpenFiles(limit=1000 + 128 + 86, jobs=1000).check()
    assert OpenFiles(limit=65_536, jobs=1000).clients == 48_306


@pytest.mark.parametrize(
    ("limit", "jobs", "advice"),
    [(1024, 1000, "to 810 or less"), (1213, 1000, "to 999 or less"), (200, 10, "--ulimit nofile= in Docker)")],
)
def test_a_process_whose_jobs_would_take_all_files_is_told_what_to_do(limit: int, jobs: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"may open {limit} files here, but {jobs} jobs at once") as refused:
        OpenFiles(limit, jobs).check()
    assert str(refused.value).endswith(advice)
    assert "LimitNOFILE=" in str(refused.value)


@pytest.mark.parametrize(
    ("limits", "most", "reached"),
    [
        ((256, 4096), 10**9, 4096),
        ((4096, 4096), 10**9, 4096),
        ((256, 10**9), 10**9, MOST_FILES),
        ((256, resource.RLIM_INFINITY), 10**9, MOST_FILES),
        ((256, resource.RLIM_INFINITY), 10_240, 10_240),
        ((2 * MOST_FILES, 10**9), 10**9, 2 * MOST_FILES),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10**9, MOST_FILES),
    ],
)
def test_the_limit_is_raised_as_far_as_the_system_grants(
    limits: tuple[int, int], most: int, reached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [limits]

    def set_limit(_kind: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > most:
            raise ValueError("not allowed to raise maximum limit")
        now[:] = [wanted]

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: now[0])
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert raise_limit() == reached
    assert now[0][1] == limits[1], "the hard limit stays"


async def test_with_a_low_soft_limit_a_crowd_is_served_whole(
    simulator: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this machine allows too few open files")
    monkeypatch.setattr(sys, "executable", launcher(tmp_path, "ulimit -Sn 256"))
    async with command(tmp_path, make_config(simulator), store_url) as pollux:
        replica = await pollux.serve()
        ids = await asyncio.gather(*(create(replica, f"job {n} [[first_delay_ms=300]]") for n in range(400)))
        ends = await asyncio.gather(*(state_of(replica, one) for one in ids))
        assert [status for status, _ in ends] == ["completed"] * 400
    assert f"({min(hard, MOST_FILES)} open files)" in pollux.logged("listening on")[0]["message"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


async def test_beyond_the_hard_limit_clients_are_refused_and_the_jobs_that_were_accepted_complete(
    simulator: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", launcher(tmp_path, "ulimit -n 400"))
    config = make_config(simulator, worker_concurrency=50)
    async with command(tmp_path, config, store_url) as pollux:
        replica = await pollux.serve()
        assert "room for 166 clients and 50 jobs (400 open files)" in pollux.logged("listening on")[0]["message"]
        ids = [await create(replica, f"job {n} [[words=40]] [[delay_ms=50]]") for n in range(100)]
        await wait_until(lambda: len(pollux.logged("response started")) >= 50, what="half of them run, the others wait")
        port = urlsplit(replica.url).port
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(166)]
        async with aiohttp.ClientSession(replica.url) as http:
            answer = await http.get("/livez")
            assert answer.headers["Retry-After"]
            assert (await refusal(answer)).fields == (503, "server_error", "service_unavailable", None)
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(600)]
        await wait_until(lambda: len(pollux.logged("response started")) == 100, timeout_s=30, what="all have started")
        await wait_until(lambda: len(pollux.logged("response ended")) == 100, timeout_s=30, what="all have ended")
        for _, writer in (*idle, *flood):
            writer.close()
        ends = await asyncio.gather(*(state_of(replica, one) for one in ids))
        assert {status for status, _ in ends} == {"completed"}
        assert len(pollux.logged("upstream of")) == 0, "each found a connection to its provider"


async def test_a_config_that_the_hard_limit_can_not_hold_ends_the_start(
    simulator: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", launcher(tmp_path, "ulimit -n 512"))
    async with command(tmp_path, make_config(simulator), store_url) as failing:
        assert await failing.ended() == 1
        assert "raise the hard limit of open files" in failing.output.read_text()


def launcher(folder: Path, first: str) -> str:
    """A program that does something first, and is then this Python."""
    program = folder / "python-with-limits"
    program.write_text(f'#!/bin/sh\n{first}\nexec {sys.executable} "$@"\n')
    program.chmod(0o700)
    return str(program)
