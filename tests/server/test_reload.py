"""What outlives a reload and what does not: contexts, the state of deployments, credentials, requests for reloads."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from server.config import Config, parse_config
from server.config.includes import Merged
from server.config.sections import ConfigError
from server.process.app import running
from server.reload import control_socket
from server.reload.control_socket import NoServer, ask_servers, controlled
from server.reload.link import config_file, read_configs
from server.reload.reload import Reloads, Report, reload
from server.reload.restart import NEED_A_RESTART, carried_over
from server.system.sockets import bound
from server.upstream.deployments import Deployment, Deployments
from server.upstream.health import Health, Rules
from tests.support.replica import CACHED, Replica, create, ended, make_config
from tests.support.upstreams import running_script
from tests.support.waiting import wait_until


def config_with(*entries: dict[str, Any], **more: Any) -> Config:
    listed = [
        {"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": "http://h/v1", "api_key": "k", **entry}}
        for entry in entries
    ]
    return parse_config({"model_list": listed, **more}, environ={})


def deployments(*entries: dict[str, Any]) -> list[Deployment]:
    return Deployments(config_with(*entries), {}).all


async def test_of_many_reloads_nothing_is_left(simulator: str, store_url: str) -> None:
    def config(number: int) -> Config:
        said = make_config(simulator, store=store_url)
        said["model_list"].append({"model_name": f"m{number}", "litellm_params": {"model": "openai/x", "api_key": "k"}})
        return parse_config(said, environ={})

    with bound("127.0.0.1", 0) as sockets:
        async with running(config(0), sockets) as (process, _):
            replica = Replica(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", process.live.now)
            response = await create(replica, "runs [[words=40]] [[delay_ms=20]]")
            gc.disable()  # nothing waits for the collector, which runs seldom in a server
            try:
                seen = []
                tasks = len(asyncio.all_tasks())
                for number in range(1, 40):
                    seen.append(weakref.ref(process.live.now))
                    await process.take(config(number))
                    process.upstream.health.is_healthy(process.live.now.deployments.all[-1])
                assert len(asyncio.all_tasks()) < tasks + 20
                assert len([one for one in seen if one() is not None]) <= 2, "those of the replica and of its run"
            finally:
                gc.enable()
            assert len(process.upstream.health._states) <= 4
            async with replica.http() as http:
                assert (await ended(http, response))["status"] == "completed"


async def test_the_next_call_of_a_run_is_made_with_the_key_that_its_deployment_has_now(store_url: str) -> None:
    asked: list[str] = []
    refused = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["Authorization"])
        refused.set()
        return web.json_response({"error": {"message": "busy"}}, status=503, headers={"Retry-After": "1"})

    async with running_script(answer) as upstream:
        old, new = (
            parse_config(make_config(upstream.base_url, api_key=key, store=store_url), environ={})
            for key in ("old", "new")
        )
        with bound("127.0.0.1", 0) as sockets:
            async with running(old, sockets) as (process, _):
                replica = Replica(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", process.live.now)
                response = await create(replica, "x", model=CACHED, num_retries=1)
                await refused.wait()
                await process.take(new)
                async with replica.http() as http:
                    assert (await ended(http, response))["status"] == "failed"
    assert asked == ["Bearer old", "Bearer new"]


def test_a_deployment_keeps_all_but_its_credential_and_that_too_if_it_moved_or_is_unfit() -> None:
    (first,) = deployments({})
    (rotated,) = deployments({"api_key": "other", "timeout": 7})
    (moved,) = deployments({"api_key": "other", "api_base": "http://elsewhere/v1"})
    renewed = first.let_in_like(rotated)
    assert renewed.headers == rotated.headers
    assert renewed.timeout_s == first.timeout_s
    assert first.let_in_like(moved) is first


def test_what_is_known_of_a_deployment_outlives_a_reload_unless_it_was_changed() -> None:
    now = 0.0
    health = Health(clock=lambda: now)
    first, second = deployments({}, {"model": "openai/n"})
    health.heed(Rules(cooldown_s=60), [first, second])
    health.failed(first)
    health.failed(second)
    again, changed = deployments({}, {"model": "openai/n", "api_key": "rotated"})
    health.heed(Rules(cooldown_s=60, allowed_fails=3), [again, changed])
    assert not health.is_healthy(again)
    assert health.is_healthy(changed), "a new key deserves a try"
    health.heed(Rules(), [again])
    assert health._states.keys() == {again.id}, "nothing is kept of what is gone"


async def test_a_higher_limit_lets_in_at_once_who_waits_for_a_place() -> None:
    (one,) = deployments({"max_parallel_requests": 1})
    (two,) = deployments({"max_parallel_requests": 2})
    health = Health()
    health.heed(Rules(), [one])

    async def enter() -> None:
        async with health.place([one]):
            pass

    async with health.place([one]):
        waiting = asyncio.create_task(enter())
        await asyncio.sleep(0)
        assert not waiting.done()
        health.heed(Rules(), [two])
        await asyncio.wait_for(waiting, 5)
        health.heed(Rules(), [])
        assert health.in_flight(one) == 1, "known as long as a call is on it"


def test_what_needs_a_restart_stays_and_is_named() -> None:
    before = config_with({}, pollux={"store": "redis://a", "lease_s": 3, "max_wait_s": 4})
    read = config_with(pollux={"store": "redis://b", "max_wait_s": 5})
    config, kept = carried_over(before, read, {})
    assert kept == ["pollux.store", "pollux.lease_s"]
    assert (config.pollux.store, config.pollux.lease_s, config.pollux.max_wait_s) == ("redis://a", 3, 5)
    assert config.model_list == []
    assert carried_over(config, config, {})[1] == []
    cache = {"litellm_settings": {"cache_params": {"type": "redis", "host": "there"}}}
    assert carried_over(config_with(), config_with(**cache), {})[1] == ["litellm_settings.cache_params"]
    assert carried_over(config_with(), config_with(**cache), {"POLLUX_STORE": "redis://c"})[1] == []


KEYED = {"general_settings": {"master_key": "m"}}


@pytest.mark.parametrize("before", [KEYED, {"pollux": {"keys": [{"name": "a", "key": "k"}]}}])
def test_no_reload_opens_to_everybody_what_had_keys(before: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no key is left"):
        carried_over(config_with({}, **before), config_with({}), {})
    open_to_all = {"pollux": {"allow_unauthenticated": True}}
    assert carried_over(config_with({}, **before), config_with({}, **open_to_all), {})[1] == []
    assert carried_over(config_with({}), config_with({}), {})[1] == [], "it was open before"


def test_an_empty_file_is_none_to_go_on_with() -> None:
    nothing = parse_config({}, environ={})
    with pytest.raises(ConfigError, match="the file is empty"):
        carried_over(config_with({}), nothing, {})
    assert carried_over(nothing, nothing, {})[1] == [], "but one may begin with it"


async def test_a_file_that_can_not_be_read_to_its_end_hinders_neither_a_reload_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.reload.reload.READ_WITHIN_S", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def apply(_text: str) -> Report:
        return Report(applied=True)

    report = await reload(pipe.read_text, apply)
    assert (report.applied, "could not be read" in report.told) == (False, True)
    [reader] = [thread for thread in threading.enumerate() if thread.name == "reading the config"]
    assert reader.daemon, "no end of the process waits for it"
    pipe.write_text("")  # lets the reader go
    await wait_until(lambda: not reader.is_alive())
    assert (await reload(lambda: "", apply)).applied
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_responses_made_under_another_prefix_are_found(simulator: str, store_url: str) -> None:
    before, after = (
        parse_config(make_config(simulator, store=store_url, id_prefix=prefix), environ={}) for prefix in ("a-", "b-")
    )
    with bound("127.0.0.1", 0) as sockets:
        async with running(before, sockets) as (process, _):
            replica = Replica(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", process.live.now)
            first = await create(replica, "runs [[words=40]] [[delay_ms=10]]")
            await process.take(after)
            async with replica.http() as http:
                assert (await ended(http, first))["status"] == "completed"
                body = {"model": CACHED, "input": "on", "background": True, "previous_response_id": first}
                second = await (await http.post("responses", json=body)).json()
                assert second["id"].startswith("b-")
                assert (await ended(http, second["id"]))["status"] == "completed"
                listed = await (await http.get(f"responses?ids={first},{second['id']}")).json()
                assert [one["status"] for one in listed["data"]] == ["completed"] * 2
                assert (await http.delete(f"responses/{first}")).status == 200


def test_every_setting_that_needs_a_restart_is_one() -> None:
    assert set(NEED_A_RESTART) <= type(Config().pollux).model_fields.keys()


async def test_reloads_that_are_asked_for_meanwhile_are_one_and_all_who_ask_are_told() -> None:
    reloads, begun, go_on = Reloads(), asyncio.Event(), asyncio.Event()
    count = 0

    async def reload() -> Report:
        nonlocal count
        count += 1
        begun.set()
        await go_on.wait()
        return Report(applied=True, told=str(count))

    told: list[str] = []
    task = asyncio.create_task(reloads.run(reload))
    reloads.ask(lambda report: told.append(report.told))
    await begun.wait()
    for _ in range(5):  # the file may have changed since the first one read it
        reloads.ask(lambda report: told.append(report.told))
    go_on.set()
    async with asyncio.timeout(5):
        while len(told) < 6:
            await asyncio.sleep(0)
    assert told == ["1", *["2"] * 5]
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


async def test_the_socket_answers_and_is_private_and_gone_afterwards(folder: Path) -> None:
    async def refuse() -> Report:
        return Report(applied=False, told="why")

    reloads = Reloads()
    task = asyncio.create_task(reloads.run(refuse))
    async with controlled(reloads):
        (path,) = folder.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        with socket.socket(socket.AF_UNIX) as dead:  # as a server that was killed leaves it
            dead.bind(str(folder / "1.sock"))
        found = await asyncio.to_thread(lambda: list(ask_servers(None)))
        assert found == [(os.getpid(), Report(applied=False, told="why"))]
        assert list(folder.iterdir()) == [path], "what nobody listens on is removed"
    assert list(folder.iterdir()) == []
    with pytest.raises(NoServer, match="no server with the process id 1 listens in"):
        list(ask_servers(1))
    task.cancel()
    await asyncio.wait([task])


async def test_other_users_can_not_connect_also_where_they_can_enter_the_directory(folder: Path) -> None:
    folder.mkdir(mode=0o755)  # as systemd makes it
    before = os.umask(0)
    try:
        async with controlled(Reloads()):
            (path,) = folder.iterdir()
            assert path.stat().st_mode & 0o777 == 0o600
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
    finally:
        os.umask(before)


async def test_a_question_without_an_end_is_no_error_of_ours(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with controlled(Reloads()):
        (path,) = folder.iterdir()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x" * 10_000)
        assert await reader.read() == b""
        writer.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_where_no_file_can_be_made_a_server_serves_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container whose root is read-only, and which has no directory for temporary files."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    async with controlled(Reloads()):
        pass
    (line,) = caplog.records
    assert line.getMessage().startswith("pollux reload won't find this server, so reload it by SIGHUP: ")


async def test_a_directory_that_others_can_write_to_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    async with controlled(Reloads()):
        assert list(folder.iterdir()) == []
    assert "others can write to" in caplog.text
    assert control_socket.directory() == folder


def test_a_config_goes_through_the_link_as_it_is() -> None:
    data: dict[Any, Any] = {
        "model_list": [{"model_name": "a: b", "litellm_params": {"model": "x", "api_version": "2024-10-21", "n": 1.5}}],
        1: [None, True, "ü\n ", "---\n"],
    }
    one = Merged(Path("/etc/a.yaml"), data, [Path("b.yaml")], ["odd"])
    two = Merged(Path("c"), {})
    assert read_configs(config_file(one.as_yaml(), two.as_yaml())) == [one, two]
