"""Looking after the service: its feed, what runs, what was used, webhooks, and what the doctor finds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.conftest import plain_url
from tests.support.replica import CACHED, MASTER_KEY, Replica, free_port, make_config, running_replica
from tests.support.servers import documented_rights
from tests.support.shell import Shell, shell_for
from tests.support.upstreams import running_simulator
from tests.support.waiting import wait_until


async def test_events_are_followed_until_the_named_responses_have_ended(shell: Shell) -> None:
    response_id = await shell.fine("submit", "Hello [[words=20]] [[rate=40]]", "--metadata", "order=17")
    lines = (await shell.fine("events", "--id", response_id)).splitlines()
    assert lines[-1].split()[1:] == ["response.completed", response_id, CACHED, "order=17"]
    [told] = (await shell.run("events", "--id", response_id, "--json")).objects
    assert (told["type"], told["data"]["id"]) == ("response.completed", response_id)
    assert (await shell.run("events", "--types", "response.done")).code == 2


async def test_top_shows_what_runs_and_how_all_do(pollux: Replica, tmp_path: Path) -> None:
    master, alice = shell_for(pollux, tmp_path, MASTER_KEY), shell_for(pollux, tmp_path, POLLUX_MODEL=CACHED)
    response_id = await alice.fine("submit", "Hello [[first_delay_ms=60000]]")

    async def told() -> bool:
        return "PROCESS" in await master.fine("top", "--once")

    await wait_until(told, what="a process has reported")
    shown = await master.fine("top", "--once")
    for expected in (response_id, "1 running", "queued", "openai gpt-5.2", "healthy", "PROCESS"):
        assert expected in shown
    assert "PROCESS" not in await alice.fine("top", "--once"), "they are the master key's to see"
    [found] = (await alice.run("top", "--once", "--json")).objects
    assert [job["id"] for job in found["unfinished"]] == [response_id]


async def test_usage_is_reported_with_a_total(shell: Shell) -> None:
    for model in (CACHED, CACHED):
        await shell.fine("submit", "-m", model, "Hello [[words=12]]", "--wait")
    [row] = (await shell.run("usage", "--json")).objects
    assert (row["model"], row["requests"]) == (CACHED, 2)
    head, first = (await shell.fine("usage", "--by", "model")).splitlines()
    assert head.split() == ["MODEL", "REQUESTS", "IN", "CACHED", "OUT", "REASONING", "COST"]
    assert first.split()[:2] == [CACHED, "2"]
    assert (await shell.run("usage", "--from", "yesterday")).code == 2


async def test_webhooks_are_managed(simulator: str, store_url: str, tmp_path: Path) -> None:
    async with running_replica(make_config(simulator, webhook_allow_private=True), store_url) as pollux:
        shell = shell_for(pollux, tmp_path, POLLUX_MODEL=CACHED)
        assert "webhooks create" in (await shell.run("webhooks", "list")).err
        nobody = f"http://127.0.0.1:{free_port()}/"
        made = await shell.fine("webhooks", "create", nobody, "--event", "response.completed", "--name", "mine")
        endpoint, secret = made.split()
        assert secret.startswith("whsec_")
        assert (await shell.fine("webhooks", "list")).splitlines()[1].split()[:4] == [
            endpoint,
            "healthy",
            "mine",
            nobody,
        ]
        assert (await shell.fine("webhooks", "rotate", endpoint)).split()[1] != secret
        ran = await shell.run("webhooks", "test", endpoint)
        assert ran.code == 2
        assert "could not be sent" in ran.err
        await shell.fine("submit", "Hello", "--wait")

        async def tried() -> bool:
            listed = (await shell.run("webhooks", "deliveries", endpoint, "--json")).objects
            return bool(listed) and listed[0]["attempts"] > 0

        await wait_until(tried, what="its delivery was tried")
        rows = (await shell.fine("webhooks", "deliveries", endpoint)).splitlines()
        event = rows[1].split()[0]
        assert (await shell.run("webhooks", "redeliver", endpoint, "evt_none")).code == 2
        assert event.startswith("evt_")
        assert (await shell.run("webhooks", "rotate", endpoint, "--json")).objects[0]["id"] == endpoint
        assert (await shell.run("webhooks", "redeliver", endpoint, event, "--json")).objects
        assert await shell.fine("webhooks", "delete", endpoint) == f"{endpoint} deleted"
        assert (await shell.run("webhooks", "delete", "../x", "--json")).code == 2
        assert (await shell.run("webhooks", "deliveries", endpoint)).code == 2


# The doctor.


def written(folder: Path, config: dict[str, Any], store_url: str) -> str:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**config, "pollux": {**config["pollux"], "store": store_url}}))
    return str(file)


def verdicts(out: str) -> set[tuple[str, str]]:
    return {(found["about"], found["verdict"]) for found in map(json.loads, out.splitlines())}


async def test_the_doctor_finds_a_config_its_store_and_its_providers_well(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    file = written(tmp_path, make_config(simulator), store_url)
    ran = await Shell(tmp_path, {}).run("doctor", file, "--upstreams", "--json")
    found = verdicts(ran.out)
    assert (ran.code, {verdict for _, verdict in found}) == (0, {"ok"}), ran.out
    assert {about for about, _ in found} == {"config", "keys", "open files", "store", "clock", "upstreams"}
    told = await Shell(tmp_path, {}).fine("doctor", "--config", file)
    assert "rights" in told
    assert told.endswith("All is well.")


async def test_the_doctor_finds_what_is_wrong(store_url: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path, {})
    away = f"http://127.0.0.1:{free_port()}/v1"
    ran = await shell.run("doctor", written(tmp_path, make_config(away), store_url), "--upstreams", "--json")
    assert (ran.code, ("upstreams", "fail") in verdicts(ran.out)) == (1, True)
    async with running_simulator(api_key="sk-another") as simulator:
        ran = await shell.run("doctor", written(tmp_path, make_config(simulator), store_url), "--upstreams")
        assert ran.code == 1
        assert "refuses the credential (401)" in ran.out
    ran = await shell.run("doctor", written(tmp_path, make_config(away, lease_sec=3), store_url))
    assert ran.code == 1
    assert "lease_sec" in ran.out
    ran = await shell.run("doctor", str(tmp_path / "none.yaml"))
    assert ran.code == 1


@pytest.mark.whole_server
async def test_the_doctor_names_the_rights_that_are_missing(
    simulator: str, store_url: str, admin: redis.Redis, tmp_path: Path
) -> None:
    if not store_url.startswith("embedded://"):
        pytest.skip("it makes a user on the embedded server")
    rights = [word for word in documented_rights() if word not in ("+xtrim", "+config|get", "&pollux:*")]
    admin.acl_setuser("lacking", enabled=True, passwords=["+secret"], reset=True)
    admin.execute_command("ACL", "SETUSER", "lacking", *rights)  # type: ignore[no-untyped-call]
    url = plain_url(store_url).replace("unix://", "unix://lacking:secret@")
    try:
        ran = await Shell(tmp_path, {}).run("doctor", written(tmp_path, make_config(simulator), url))
    finally:
        admin.acl_deluser("lacking")
    assert ran.code == 1, ran.out
    assert "+xtrim" in ran.out
    assert "+config|get" in ran.out
    assert "+subscribe|pollux:*" in ran.out
    assert "+hset" not in ran.out


async def test_the_doctor_looks_at_a_running_server(pollux: Replica, tmp_path: Path) -> None:
    master = shell_for(pollux, tmp_path, MASTER_KEY)

    async def reported() -> bool:
        return ("processes", "ok") in verdicts((await master.run("doctor", "--json")).out)

    await wait_until(reported, what="its process has reported")
    ran = await master.run("doctor", "--upstreams", "--json")
    assert (ran.code, {verdict for _, verdict in verdicts(ran.out)}) == (0, {"ok"}), ran.out
    assert f"{CACHED} has answered in" in ran.out
    ran = await shell_for(pollux, tmp_path, "sk-wrong").run("doctor", "--json")
    assert (ran.code, ("key", "fail") in verdicts(ran.out)) == (1, True)
    async with asyncio.timeout(8):
        ran = await Shell(tmp_path, {"POLLUX_URL": f"127.0.0.1:{free_port()}"}).run("doctor", "--json")
    assert (ran.code, verdicts(ran.out)) == (1, {("server", "fail")})
