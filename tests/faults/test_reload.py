"""Reloads of the config, by SIGHUP and by `pollux reload`: real processes, as an operator changes them under load."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.support.commands import Command, command
from tests.support.replica import (
    ALICE,
    BOB,
    CACHED,
    MASTER_KEY,
    NATIVE,
    Replica,
    create,
    ended,
    free_port,
    make_config,
    with_output,
)
from tests.support.scraping import scraped, somebody_waits
from tests.support.sdk import new_sdk
from tests.support.sse import read_stream
from tests.support.upstreams import running_simulator
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[str]:
    async with running_simulator() as base_url:
        yield base_url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[int, Command]]:
    """A server of one process and one of two, with a store of their own, for all tests that leave them whole."""
    store = f"embedded://{tmp_path_factory.mktemp('store')}"
    config, folder = make_config(upstream), tmp_path_factory.mktemp
    async with (
        command(folder("one"), config, store) as one,
        command(folder("two"), config, store, "--workers", "2") as two,
    ):
        await asyncio.gather(one.serve(), two.serve(2))
        yield {1: one, 2: two}


@pytest_asyncio.fixture(loop_scope="module")
async def pollux(request: pytest.FixtureRequest, started: dict[int, Command], upstream: str) -> AsyncIterator[Command]:
    """The server of so many processes, with the config of `make_config` again afterwards."""
    pollux = started[request.param]
    yield pollux
    await pollux.hang_up(make_config(upstream))


@pytest_asyncio.fixture(loop_scope="module")
async def replica(pollux: Command) -> Replica:
    return await pollux.serve()


ONE, TWO, BOTH = (pytest.mark.parametrize("pollux", counts, indirect=True) for counts in ([1], [2], [1, 2]))


def changed(upstream: str, *, models: tuple[str, ...] = (CACHED,), keys: dict[str, str], **more: Any) -> dict[str, Any]:
    """Another config of the same operator: these models, and these keys by their owners."""
    config = make_config(upstream, **more)
    (first, _) = config["model_list"]
    params = first["litellm_params"]
    config["model_list"] = [
        {"model_name": name, "litellm_params": {**params, "model": f"openai/{name}"}} for name in models
    ]
    config["pollux"]["keys"] = [{"name": owner, "key": key} for owner, key in keys.items()]
    return config


async def status_of(replica: Replica, key: str, model: str) -> int:
    """What a new request with this key for this model is answered."""
    async with replica.http(key) as http:
        answer = await http.post("responses", json={"model": model, "input": "new", "background": True})
        return answer.status


@BOTH
async def test_new_work_goes_by_the_new_file_and_what_is_under_way_goes_on(
    pollux: Command, replica: Replica, upstream: str
) -> None:
    before = await scraped(replica)
    async with replica.http(ALICE) as http:
        native = await http.post("responses", json={"model": NATIVE, "input": "n", "background": True})
        assert native.status == 200, await native.text()
        composite = (await native.json())["id"]
        running = await create(replica, "runs [[words=100]] [[delay_ms=20]]", stream=True)
        await with_output(replica, running)
        stream = await http.get(f"responses/{running}?stream=true")
        waiter = asyncio.create_task(http.get(f"responses/{running}?wait=30"))
        await wait_until(lambda: somebody_waits(replica), what="it waits")
        await pollux.hang_up(changed(upstream, models=("gpt-6",), keys={"carol": "sk-carol-9999"}))
        # In each process at once, and each connection meets any of them.
        for _ in range(8):
            assert await status_of(replica, ALICE, CACHED) == 401
            assert await status_of(replica, "sk-carol-9999", CACHED) == 404
            assert await status_of(replica, "sk-carol-9999", "gpt-6") == 200
            async with replica.http(MASTER_KEY) as master:
                assert (await master.get(f"responses/{composite}")).status == 404
        events = await read_stream(stream)
        assert events[-1]["type"] == "response.completed", "its key and its deployment are gone"
        assert (await (await waiter).json())["status"] == "completed"
    scrape = await scraped(replica)
    applied = [one.value("config_reloads_total", outcome="applied") for one in (before, scrape)]
    assert applied[1] - applied[0] == 1
    assert scrape.value("config_last_reload_successful") == 1


@BOTH
async def test_a_file_with_a_mistake_changes_nothing_and_is_told(
    pollux: Command, replica: Replica, upstream: str
) -> None:
    refused = "the config was not reloaded, nothing has changed: "
    http_only = {"url": "http://a.example", "secret": "whsec_" + "A" * 32}
    before = (await scraped(replica)).value("config_reloads_total", outcome="refused")
    await pollux.hang_up(make_config(upstream, keys=[], webhooks=[http_only]), refused)
    assert "pollux.webhooks[0].url can't be used" in pollux.logged(refused)[-1]["message"]
    count = len(pollux.logged(refused))
    for text in ("model_list: [", ""):
        pollux.config.write_text(text)
        pollux.process.send_signal(signal.SIGHUP)
        count += 1
        await wait_until(lambda: len(pollux.logged(refused)) == count, what="it is refused")  # noqa: B023
    assert await status_of(replica, ALICE, CACHED) == 200
    async with replica.http() as http:
        assert (await http.get(f"{replica.url}/readyz")).status == 200
    scrape = await scraped(replica)
    assert scrape.value("config_reloads_total", outcome="refused") - before == 3
    assert scrape.value("config_last_reload_successful") == 0
    assert scrape.value("config_last_reload_success_timestamp_seconds") > 0


async def test_the_command_tells_what_came_of_it(started: dict[int, Command], upstream: str) -> None:
    async def ask(pollux: Command) -> None:
        assert await pollux.reload() == (0, f"process {pollux.process.pid} has reloaded its config\n")
        good = pollux.config.read_text()
        pollux.write(make_config(upstream, max_wait=3))
        code, said = await pollux.reload()
        assert code == 1
        assert f"process {pollux.process.pid} has reloaded nothing: pollux.max_wait: there is no such key." in said
        pollux.config.write_text(good)

    await asyncio.gather(*map(ask, started.values()))


@TWO
async def test_a_process_that_starts_later_gets_what_was_checked_whatever_the_file_says(
    pollux: Command, replica: Replica, upstream: str
) -> None:
    await pollux.hang_up(changed(upstream, keys={"carol": "sk-carol-9999"}, worker_concurrency=3))
    assert pollux.logged("the config was reloaded; these settings need a restart: pollux.worker_concurrency")
    pollux.config.write_text("pollux: {nonsense: 1}")
    old = pollux.serving
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    await pollux.serve(len(old) + 2)
    for _ in range(4):
        assert await status_of(replica, "sk-carol-9999", CACHED) == 200
        assert await status_of(replica, ALICE, CACHED) == 401
    room = {line["message"].partition("with room for ")[2] for line in pollux.logged("listening on")}
    assert len(room) == 1, "what needs a restart is as at the start of all"


@ONE
async def test_what_needs_a_restart_is_told_by_name_until_it_has_come_and_the_rest_is_applied(
    pollux: Command, replica: Replica, upstream: str
) -> None:
    config = changed(upstream, keys={"carol": "sk-carol-9999"}, shards=7, lease_s=3, cors_origins=["https://a.b"])
    for _ in range(2):
        await pollux.hang_up(config)
    lines = pollux.logged("the config was reloaded; these settings need a restart: pollux.shards, pollux.lease_s")
    assert len(lines) == 2
    async with replica.http("sk-carol-9999") as http:
        answer = await http.get("responses", headers={"Origin": "https://a.b"})
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://a.b")


@ONE
async def test_files_are_found_by_their_paths_through_links_and_includes(
    pollux: Command, replica: Replica, tmp_path: Path
) -> None:
    """As Kubernetes mounts a ConfigMap: files are links into a directory that a link names, and that is replaced."""
    config = yaml.safe_load(pollux.config.read_text())
    pollux.config.unlink()
    pollux.config.symlink_to(tmp_path / "..data" / "main.yaml")
    beside = pollux.config.parent / "models.yaml"
    beside.symlink_to(tmp_path / "..data" / "models.yaml")
    for number, key in enumerate(("sk-first-0000", "sk-second-0000")):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        pollux_section = {**config["pollux"], "keys": [{"name": "alice", "key": key}]}
        main = {**config, "pollux": pollux_section, "model_list": [], "include": ["models.yaml"]}
        models = [{**config["model_list"][0], "model_name": f"m{number}"}]
        (folder / "main.yaml").write_text(yaml.safe_dump(main))
        (folder / "models.yaml").write_text(yaml.safe_dump({"model_list": models}))
        (tmp_path / "..new").symlink_to(folder)
        (tmp_path / "..new").rename(tmp_path / "..data")
        before = len(pollux.logged("the config was reloaded"))
        pollux.process.send_signal(signal.SIGHUP)
        await wait_until(lambda: len(pollux.logged("the config was reloaded")) > before, what="it reloads")  # noqa: B023
        assert await status_of(replica, key, f"m{number}") == 200
    assert await status_of(replica, "sk-first-0000", "m1") == 401
    assert await status_of(replica, "sk-second-0000", "m0") == 404


async def test_a_reload_that_is_asked_for_while_the_process_starts_comes_after_the_start(
    upstream: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}"

    async def start(*options: str) -> None:
        async with command(tmp_path_factory.mktemp("start"), make_config(upstream), nobody, *options) as pollux:
            # From the first line of the program on; before, it is Python's interpreter that a signal would end.
            await wait_until(lambda: hears(pollux.process.pid, signal.SIGHUP), what="it hears the signal")

            def ask_until_it_waits() -> bool:
                pollux.process.send_signal(signal.SIGHUP)
                return bool(pollux.logged("waiting for the store"))

            await wait_until(ask_until_it_waits, what="it waits")
            pollux.process.terminate()
            assert await pollux.ended() == 0

    await asyncio.gather(start(), start("--workers", "2"))


async def test_in_a_drain_and_without_the_store_it_reloads_as_ever(upstream: str, tmp_path: Path) -> None:
    store = f"embedded://{tmp_path / 'store'}"
    async with command(tmp_path, make_config(upstream, drain_grace_s=1.2), store) as pollux:
        replica = await pollux.serve()
        running = await create(replica, "[[words=40]] [[delay_ms=50]]")
        await with_output(replica, running)
        servers = [int(pid) for pid in (await _pids_of("valkey-server", str(pollux.process.pid)))]
        for pid in servers:
            os.kill(pid, signal.SIGSTOP)
        try:
            await pollux.hang_up(changed(upstream, keys={"carol": "sk-carol-9999"}, drain_grace_s=1.2))
        finally:
            for pid in servers:
                os.kill(pid, signal.SIGCONT)
        assert servers
        pollux.process.terminate()
        await wait_until(lambda: pollux.logged("leaving in"), what="it leaves")
        await pollux.hang_up(changed(upstream, keys={"dave": "sk-dave-99999"}))
        assert await status_of(replica, "sk-dave-99999", CACHED) == 200
        assert await pollux.ended() == 0
        assert "completed" in [line["status"] for line in pollux.logged("response ended")]


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal."""
    (caught,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    is_there = b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return is_there and bool(int(caught.split()[1], 16) & 1 << number - 1)


async def _pids_of(name: str, parent: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after = (folder / "stat").read_text().rpartition(")")[2].split()
            if after[1] == parent and name.split("-", maxsplit=1)[0] in (folder / "cmdline").read_text():
                found.append(folder.name)
        except OSError:
            continue
    return found


@TWO
async def test_reloads_under_load_cost_no_request_and_no_response(
    pollux: Command, replica: Replica, upstream: str
) -> None:
    """Models come and go, and alice's and the master's keys are replaced by lists, one step after the other."""
    last, overlap = 6, 4
    keys = [f"sk-alice-{number:04}" for number in range(last + 1)]

    def at(step: int) -> dict[str, Any]:
        models = ("stays", *(f"of-{number}" for number in range(step, step + overlap)))
        config = changed(upstream, models=models, keys={"bob": BOB})
        still = keys[max(0, step - overlap) : step + 1]
        config["pollux"]["keys"] += [{"name": "alice", "key": key} for key in still]
        config["general_settings"]["master_key"] = [f"sk-master-{step}", f"sk-master-{step - 1}"]
        return config

    step = 0
    over = asyncio.Event()
    made: list[str] = []
    rounds = Counter[int]()

    async def work(client: int) -> None:

        while not over.is_set():
            rounds[client] += 1
            # As a client does who learns of new keys and models before the old ones end.
            async with new_sdk(f"{replica.url}/v1", keys[step], timeout=60) as sdk:
                model = "stays" if client % 2 else f"of-{step + overlap // 2}"
                text = "hi [[words=10]] [[delay_ms=10]]"
                if client < 2:
                    stream = await sdk.responses.create(model=model, input=text, background=True, stream=True)
                    events = [event async for event in stream]
                    assert events[-1].type == "response.completed", events[-1]
                    continue
                created = await sdk.responses.create(model=model, input=text, background=True)
                made.append(created.id)
                answer = await sdk.responses.with_raw_response.retrieve(created.id, extra_query={"wait": "20"})
                assert answer.parse().status == "completed", answer.text

    await pollux.hang_up(at(0))
    async with asyncio.TaskGroup() as group:
        for client in range(4):
            group.create_task(work(client))
        for number in range(1, last + 1):
            before = rounds.copy()
            await pollux.hang_up(at(number))
            step = number
            await wait_until(lambda: all(rounds[client] > before[client] for client in range(4)), what="all go on")  # noqa: B023
        over.set()
    assert len(made) > last, "clients were at work"
    async with replica.http(f"sk-master-{last}") as http:
        for one in made:
            assert (await ended(http, one))["status"] == "completed"
    assert await status_of(replica, keys[0], "stays") == 401
    assert not pollux.logged("request broke")
    assert not pollux.logged("run broke")
