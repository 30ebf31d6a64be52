"""`pollux serve --workers` and `--role`, and what signals do: real processes, as an operator starts them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import time
from pathlib import Path

import aiohttp
import pytest
import yaml

from server.cli import main
from server.config import Config
from server.config.includes import Merged
from server.process.supervise import _Parent, reserved
from server.reload.reload import Source
from storage.embedded import _locate, _try_lock
from tests.support.collector import running_collector
from tests.support.commands import command, lives
from tests.support.refusals import refusal
from tests.support.replica import ALICE, Replica, all_complete, create, free_port, make_config, with_output
from tests.support.scraping import Scrape, scraped
from tests.support.waiting import wait_until

KEY = {"Authorization": f"Bearer {ALICE}"}


async def state_of(replica: Replica, response_id: str, wait_s: int = 20) -> tuple[str, str]:
    """The status and the ETag, as a patient client learns them: one that tries again when a connection breaks."""
    async with replica.http() as http:
        for _ in range(50):
            try:
                answer = await http.get(f"responses/{response_id}?wait={wait_s}")
                return (await answer.json())["status"], answer.headers["ETag"]
            except aiohttp.ClientConnectionError:
                continue
    raise AssertionError("no connection held")


async def test_each_process_hands_over_its_spans_when_it_ends(
    simulator: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        async with command(tmp_path, make_config(simulator), store_url, "--workers", "2") as running:
            replica = await running.serve(2)
            for _ in range(40):
                async with replica.http() as http:  # a connection of its own, so that both get some
                    assert (await http.get("models")).status == 200
            replica.signal(signal.SIGTERM)
            assert await running.ended() == 0
        assert len(collector.named("GET /v1/models")) == 40
        assert len({span.resource["service.instance.id"] for span in collector.spans}) == 2


async def test_a_killed_process_is_replaced_at_once_and_its_jobs_complete(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with command(tmp_path, make_config(simulator, lease_s=2), store_url, "--workers", "2") as pollux:
        replica = await pollux.serve(2)
        ids = [await create(replica, f"job-{n} [[words=30]] [[delay_ms=50]]") for n in range(16)]
        assert {line["pid"] for line in pollux.logged("response created")} == set(pollux.serving), "both serve"
        for one in ids:
            await with_output(replica, one)
        victim, survivor = pollux.serving
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        states = asyncio.gather(*(state_of(replica, one) for one in ids))
        await pollux.serve(3)
        assert time.monotonic() - killed_at < 10
        assert [status for status, _ in await states] == ["completed"] * 16
        assert lives(survivor)
        # Told to end alone, one is replaced as well.
        os.kill(survivor, signal.SIGTERM)
        await pollux.serve(4)


BREAKS_ONCE = """
import os
import server.hub
from server.hub import Hub

async def sweep(_hub):
    while True:
        await server.hub.asyncio.sleep(0.05)
        try:
            os.unlink({flag!r})
        except FileNotFoundError:
            continue
        raise RuntimeError("a defect")

Hub.sweep = sweep
"""
"""What Python runs at the start of each process: the first one that finds the file breaks."""


async def test_a_process_whose_service_breaks_is_replaced_by_its_parent(
    simulator: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "break"
    (tmp_path / "sitecustomize.py").write_text(BREAKS_ONCE.format(flag=str(flag)))
    # With the tree that is tested, which need not be the one that is installed.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    async with command(tmp_path, make_config(simulator), store_url, "--workers", "2") as pollux:
        await pollux.serve(2)
        flag.touch()
        await pollux.serve(3)
        assert pollux.process.returncode is None
        (line,) = pollux.logged("the sweep broke, shutting down")
        assert line["pid"] in pollux.serving[:2]
        await wait_until(lambda: not lives(line["pid"]), what="the broken one has ended")


async def test_ctrl_c_drains_all_and_nothing_is_left_not_even_the_store(simulator: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    async with command(tmp_path, make_config(simulator), f"embedded://{store}", "--workers", "2") as pollux:
        replica = await pollux.serve(2)
        ids = [await create(replica, "[[words=30]] [[delay_ms=50]]") for _ in range(8)]
        for one in ids:
            await with_output(replica, one)
        # As a terminal does it: to the whole group. And as systemd does it: to each process.
        os.killpg(pollux.process.pid, signal.SIGINT)
        for pid in pollux.serving:
            os.kill(pid, signal.SIGTERM)
        assert await pollux.ended() == 0
        assert not any(lives(pid) for pid in pollux.serving)
        ends = [line["status"] for line in pollux.logged("response ended")]
        assert ends == ["completed"] * 8, "a drain is a drain, however many heard of it"
        assert len(pollux.logged("stopped")) == 2
        lock = _try_lock(_locate(store).server_lock, fcntl.LOCK_EX)
        assert lock is not None, "the store's server has ended"
        os.close(lock)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_ctrl_c_ends_at_once(workers: str, simulator: str, store_url: str, tmp_path: Path) -> None:
    async with command(tmp_path, make_config(simulator, drain_s=60), store_url, "--workers", workers) as pollux:
        replica = await pollux.serve(int(workers))
        await with_output(replica, await create(replica, "[[words=1000]] [[delay_ms=50]]"))
        os.killpg(pollux.process.pid, signal.SIGINT)
        await wait_until(lambda: pollux.logged("draining 1 runs"), what="it drains")
        os.killpg(pollux.process.pid, signal.SIGINT)
        assert await pollux.ended() == 0
        assert pollux.logged("run stopped"), "handed over"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_start_that_waits_for_its_store_can_be_ended(workers: str, simulator: str, tmp_path: Path) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}"
    async with command(tmp_path, make_config(simulator), nobody, "--workers", workers) as pollux:
        await wait_until(lambda: pollux.logged("waiting for the store"), what="it waits")
        pollux.process.send_signal(signal.SIGTERM)
        assert await pollux.ended() == 0


async def test_without_their_parent_the_children_drain_and_end(simulator: str, store_url: str, tmp_path: Path) -> None:
    async with command(tmp_path, make_config(simulator), store_url, "--workers", "2") as pollux:
        replica = await pollux.serve(2)
        await with_output(replica, await create(replica, "[[words=20]] [[delay_ms=50]]"))
        pollux.process.kill()
        await wait_until(lambda: not any(lives(pid) for pid in pollux.serving), timeout_s=15, what="they are gone")
        assert [line["status"] for line in pollux.logged("response ended")] == ["completed"]


@pytest.mark.parametrize("shares", [0, 1])
def test_a_port_that_is_taken_is_an_error_even_if_it_could_be_shared(
    shares: int,
) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"can't listen on 127.0.0.1 port {port}: Address already in use"):
            reserved("127.0.0.1", port).__enter__()


async def test_what_can_never_start_says_why_once_and_ends(simulator: str, store_url: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for store, option, why in (
            ("nonsense://", "0", "the store 'nonsense' is not known"),
            (store_url, str(port), f"can't listen on 127.0.0.1 port {port}: Address already in use\n"),
        ):
            options = ("--workers", "3", "--port", option)
            async with command(tmp_path, make_config(simulator), store, *options) as failing:
                assert await failing.ended() == 1
                said = failing.output.read_text()
            assert said.count("pollux: ") == 1
            assert f"pollux: {why}" in said


def test_a_config_error_is_one_before_any_process_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(make_config("http://127.0.0.1:1", lease_sec=3)))
    assert main(["serve", "--config", str(file), "--workers", "2"]) == 1
    assert "lease_sec" in capsys.readouterr().err


async def test_api_and_workers_run_apart(simulator: str, store_url: str, tmp_path: Path) -> None:
    config = make_config(simulator)
    async with command(tmp_path, config, store_url, "--role", "api") as api:
        replica = await api.serve()
        first = await create(replica, "before there is a worker")
        assert (await state_of(replica, first, wait_s=0))[0] == "queued"
        async with command(tmp_path, config, store_url, "--role", "worker") as worker:
            worker_url = (await worker.serve()).url
            ids = [first, *[await create(replica, "with one") for _ in range(10)]]
            assert {(await state_of(replica, one))[0] for one in ids} == {"completed"}
            assert not api.logged("response started")
            assert len(worker.logged("response started")) == 11

            async with aiohttp.ClientSession(worker_url) as http:
                for path in ("/livez", "/readyz"):
                    assert (await http.get(path)).status == 200
                for request in (
                    http.get(f"/v1/responses/{first}", headers=KEY),
                    http.post("/v1/responses", json={"model": "x"}),
                    http.get("/nothing/is/here"),
                ):
                    assert (await refusal(await request)).fields == (404, "invalid_request_error", None, None)


def test_no_process_at_all_is_wrong_usage() -> None:
    assert main(["serve", "--config", "any.yaml", "--workers", "0"]) == 2


NOTHING = Source(Merged(Path("config.yaml")), Config())
SERVES_AND_DIES = "import os, sys; os.write(int(sys.argv[-1]), b's'); sys.exit(3)"
SERVES_AND_HANGS = "import os, sys, time; os.write(int(sys.argv[-1]), b's'); time.sleep(60)"


async def test_what_dies_right_after_its_start_is_started_again_ever_later(caplog: pytest.LogCaptureFixture) -> None:
    parent = _Parent([sys.executable, "-c", SERVES_AND_DIES], 1, NOTHING)
    running = asyncio.create_task(parent.run())
    await wait_until(lambda: len(caplog.messages) >= 3, what="it died three times")
    parent.on_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running, 5) == 0
    assert [message[-5:] for message in caplog.messages[:3]] == ["0.0 s", "0.5 s", "1.0 s"]


async def test_what_hangs_is_killed_soon_after_it_was_told_to_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.process.supervise.HURRIED_END_WITHIN_S", 0.1)
    parent = _Parent([sys.executable, "-c", SERVES_AND_HANGS], 2, NOTHING)
    running = asyncio.create_task(parent.run())
    await wait_until(lambda: len(parent._children) == 2 and all(parent._children.values()), what="both run")
    parent.on_signal(signal.SIGTERM)
    parent.on_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running, 5) == 0


BREAKING = """
import asyncio, sys
from server.cli import main
from server.config import Config
from server.config.includes import Merged
from server.reload.reload import Source
from server.hub import Hub

async def breaks(self):
    await asyncio.sleep(0.3)
    raise RuntimeError("a defect")

Hub.sweep = breaks
sys.exit(main(sys.argv[1:]))
"""


async def test_a_service_that_breaks_ends_the_process_soon_with_a_status_that_supervisors_restart(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    config = make_config(simulator, drain_s=60)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**config, "pollux": {**config["pollux"], "store": store_url}}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BREAKING, "serve", "--config", str(file), "--port", "0"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(15):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"the sweep broke, shutting down" in said
    assert b"RuntimeError: a defect" in said


async def test_a_scrape_of_any_process_tells_of_all_and_nothing_of_the_dead(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with command(tmp_path, make_config(simulator, lease_s=2), store_url, "--workers", "2") as pollux:
        replica = await pollux.serve(2)
        await wait_until(lambda: _shows(replica, "processes", 2), what="both are shown")
        ids = [await create(replica, "[[words=3]]") for _ in range(24)]
        async with replica.http() as http:
            await all_complete(http, ids)
        assert len({line["pid"] for line in pollux.logged("response created")}) == 2, "both serve"
        # Each scrape is a connection of its own, and lands where the kernel sends it.
        for _ in range(8):
            await wait_until(lambda: _shows(replica, "responses_created_total", 24), what="all of both")
        assert (await scraped(replica)).value("responses_ended_total", status="completed") == 24
        assert (await scraped(replica)).value("jobs_queued") == 0, "what the store says is not added up"
        before = _started(await scraped(replica))
        assert before.keys() == {"parent", "1", "2"}
        hanging = [await create(replica, "[[words=3]] [[first_delay_ms=60000]]") for _ in range(8)]
        await wait_until(lambda: _shows(replica, "runs_active", 8), what="all run")
        os.kill(pollux.serving[0], signal.SIGKILL)
        await pollux.serve(3)
        await wait_until(lambda: _shows(replica, "processes", 2), what="the new one counts, and the dead one not")
        os.kill(pollux.serving[2], signal.SIGKILL)  # the next one comes after a pause
        await wait_until(lambda: _shows(replica, "processes", 1), what="the dead one counts no more")
        await pollux.serve(4)
        await wait_until(lambda: _shows(replica, "runs_active", 8), what="each run is counted once")
        after = _started(await scraped(replica))
        assert after.keys() == before.keys()
        assert len([name for name in after if after[name] != before[name]]) == 1, (
            "the new one has the dead one's number"
        )
        created = (await scraped(replica)).value("responses_created_total")
        assert 24 <= created <= 32, "of the dead one, only its last second is lost"
        directory = Path(str(pollux.logged("sharing metrics")[0]["directory"]))
        assert {path.stem.rpartition("_")[2] for path in directory.glob("*.db")} == {"0", "1", "2"}, "the parent's too"
        async with replica.http() as http:
            await asyncio.gather(*(http.post(f"responses/{one}/cancel") for one in hanging))
        pollux.process.terminate()
        assert await pollux.ended() == 0
        assert not directory.exists()


def _started(scrape: Scrape) -> dict[str, float]:
    """When each process was started."""
    return {
        sample.labels["process"]: sample.value
        for family in scrape.families
        for sample in family.samples
        if sample.name == "process_start_time_seconds"
    }


async def _shows(replica: Replica, name: str, value: float) -> bool:
    return (await scraped(replica)).value(name) == value


async def test_an_environment_for_files_of_metrics_is_not_heeded(
    simulator: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # LiteLLM's users have it set, for LiteLLM's own.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "nowhere"))
    async with command(tmp_path, make_config(simulator), store_url) as pollux:
        replica = await pollux.serve()
        assert (await scraped(replica)).value("processes") == 1
