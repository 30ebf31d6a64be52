"""A response from its creation to its end, as somebody at a terminal or a script goes about it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.replica import BOB, CACHED, MASTER_KEY, NATIVE, Replica, free_port
from tests.support.shell import Shell, shell_for
from tests.support.upstreams import running_script

LATE = "[[first_delay_ms=60000]]"


async def test_submit_prints_the_id_alone(shell: Shell) -> None:
    ran = await shell.run("submit", "Hello", "there")
    assert ran.code == 0
    response_id = ran.out.strip()
    assert response_id.startswith("litellm_poll_")
    [shown] = (await shell.run("wait", response_id, "--json")).objects
    assert "Hello" in shown["output"][0]["content"][0]["text"]
    assert "there" in shown["output"][0]["content"][0]["text"]


@pytest.mark.parametrize("how", ["--wait", "--stream"])
async def test_submit_prints_the_text_and_tells_how_it_ended(shell: Shell, how: str) -> None:
    ran = await shell.run("submit", "Hello [[words=12]]", how)
    assert (ran.code, len(ran.out.split())) == (0, 12)
    assert ran.out.startswith("You said: Hello")
    assert ran.err.startswith("✓ completed in ")
    assert "12 out" not in ran.out
    ran = await shell.run("submit", "Hello [[fail=1]] [[words=20]]", how)
    assert ran.code == 1
    assert "server_error: " in ran.err
    assert (await shell.run("submit", "Hello [[incomplete=1]] [[words=20]]", how)).code == 1


async def test_streamed_as_json_it_prints_each_event(shell: Shell) -> None:
    events = (await shell.run("submit", "Hello [[words=5]]", "--stream", "--json")).objects
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    [whole] = (await shell.run("submit", "Hello [[words=5]]", "--wait", "--json")).objects
    assert whole["status"] == "completed"


async def test_a_native_response_is_watched_like_any_other(shell: Shell) -> None:
    ran = await shell.run("submit", "-m", NATIVE, "Hello [[words=30]] [[rate=50]]", "--wait")
    assert (ran.code, len(ran.out.split())) == (0, 30)
    response_id = await shell.fine("submit", "-m", NATIVE, "Hello [[words=30]]")
    assert (await shell.run("watch", response_id)).code == 0
    assert "completed" in await shell.fine("show", response_id)


async def test_input_comes_from_arguments_files_and_standard_input(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("from a file")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    (tmp_path / "odd.bin").write_bytes(b"\xff\xfe\x00")
    assert "You said: from a pipe" in await shell.fine("submit", "--wait", stdin="from a pipe")
    said = await shell.fine("submit", "say", "-", "--file", str(tmp_path / "notes.txt"), "--wait", stdin="piped")
    assert said.startswith("You said: say\n\npiped\n\nfrom a file")
    response_id = await shell.fine("submit", "look", "--file", str(tmp_path / "photo.png"))
    assert (await shell.run("wait", response_id)).code == 0
    for words in (["--file", str(tmp_path / "odd.bin")], ["--file", "/none"], [" "], ["\udcff"], ["hi", "-"]):
        ran = await shell.run("submit", *words, stdin="\udcff")
        assert (ran.code, ran.out) == (2, "")


async def test_fields_of_the_request_are_options(shell: Shell) -> None:
    made = await shell.run(
        *("submit", "Hello", "--metadata", "order=17", "--instructions", "Be brief.", "--effort", "low"),
        *("--field", "temperature=0.5", "--field", 'text={"verbosity":"low"}', "--field", "user=ann", "--json"),
    )
    [response] = made.objects
    assert (response["metadata"], response["instructions"]) == ({"order": "17"}, "Be brief.")
    assert (response["reasoning"]["effort"], response["temperature"], response["user"]) == ("low", 0.5, "ann")
    for wrong in (["--field", "text={oops"], ["--field", "novalue"], ["--metadata", "=x"], ["--field", "stream=true"]):
        assert (await shell.run("submit", "Hello", *wrong)).code == 2


async def test_the_model_may_be_left_out_where_there_is_but_one(pollux: Replica, tmp_path: Path) -> None:
    ran = await shell_for(pollux, tmp_path).run("submit", "Hello")
    assert ran.code == 2
    assert CACHED in ran.err
    assert NATIVE in ran.err
    assert (await shell_for(pollux, tmp_path).run("submit", "-m", "none", "Hello")).code == 2


async def test_a_create_call_whose_answer_is_lost_is_repeated_and_makes_one_response(tmp_path: Path) -> None:
    keys: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            assert request.transport is not None
            request.transport.abort()
        if len(keys) == 2:
            return web.json_response({"error": {"message": "Later."}}, status=503, headers={"Retry-After": "0"})
        return web.json_response({"id": "litellm_poll_1", "status": "queued"})

    async with running_script(answer) as upstream:
        place = Shell(tmp_path, {"POLLUX_URL": upstream.base_url, "POLLUX_MODEL": CACHED})
        assert await place.fine("submit", "Hello") == "litellm_poll_1"
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_wait_tells_of_each_as_it_ends_and_of_all_by_its_code(shell: Shell) -> None:
    good, bad, late = [
        await shell.fine("submit", text) for text in ("Hello", "Hello [[fail=1]] [[words=20]]", f"Hello {LATE}")
    ]
    assert (await shell.run("wait", good)).code == 0
    ran = await shell.run("wait", good, bad)
    assert ran.code == 1
    assert f"{good} completed" in ran.out
    assert f"{bad} failed (server_error: " in ran.out
    ran = await shell.run("wait", late, good, "--any")
    assert (ran.code, ran.out.split()) == (0, [good, "completed"])
    began = time.monotonic()
    ran = await shell.run("wait", late, good, "--timeout", "0.2")
    assert ran.code == 5
    assert 0.2 <= time.monotonic() - began < 0.9
    assert "1 of 2 have not ended" in ran.err
    assert await shell.fine("cancel", late) == f"{late} cancelled"
    assert (await shell.run("wait", late, good, "--timeout", "inf")).code == 3
    assert (await shell.run("watch", late)).code == 3
    ran = await shell.run("wait", good, "litellm_poll_none")
    assert ran.code == 2
    assert "another key's" in ran.err


async def test_several_are_watched_by_a_line_for_each_change(shell: Shell) -> None:
    first = await shell.fine("submit", "one [[words=20]] [[rate=40]]")
    second = await shell.fine("submit", "two [[words=20]] [[rate=40]] [[fail=1]]")
    ran = await shell.run("watch", first, second)
    assert ran.code == 1
    assert f"response.completed {first}" in ran.out
    assert f"response.failed {second}" in ran.out


async def test_ids_may_be_short(shell: Shell) -> None:
    response_id = await shell.fine("submit", "Hello [[words=20]]")
    number = response_id.removeprefix("litellm_poll_")
    assert response_id in await shell.fine("show", number[:8])
    assert (await shell.run("wait", number[:13])).code == 0
    ran = await shell.run("show", "0123-none")
    assert ran.code == 2
    ran = await shell.run("show", "00000000")
    assert "no response's number begins with 00000000" in ran.err


async def test_ids_come_from_standard_input_too(shell: Shell) -> None:
    ids = [await shell.fine("submit", text) for text in ("one", "two", f"three {LATE}")]
    assert (await shell.run("cancel", "-", stdin=ids[2])).code == 0
    ran = await shell.run("wait", ids[0][-36:][:8], "-", stdin="\n".join(ids[::-1]))
    assert (ran.code, len(ran.out.splitlines())) == (3, 3)
    assert (await shell.run("watch", "-", stdin=ids[2])).code == 3
    for command in ("wait", "watch", "cancel", "delete", "show"):
        for given in ("-", "", "a,b", "a\nb"):
            ran = await shell.run(command, given, stdin=" \n")
            assert (ran.code, ran.out) == (2, ""), (command, given)


async def test_a_list_is_narrowed_and_comes_in_pages(shell: Shell) -> None:
    ids = [await shell.fine("submit", f"Hello {n}", "--metadata", f"order=x{n}") for n in range(3)][::-1]
    await shell.fine("wait", *ids)
    assert (await shell.fine("list", "-q")).split() == ids
    assert (await shell.fine("list", "-q", "--limit", "2")).split() == ids[:2]
    assert (await shell.fine("list", "-q", "--all")).split() == ids
    assert (await shell.fine("list", "-q", "--search", "X1")).split() == [ids[1]]
    assert (await shell.run("list", "--status", "failed")).err == "There are none.\n"
    assert [job["id"] for job in (await shell.run("list", "--json")).objects] == ids
    head, first, *_ = (await shell.fine("list")).splitlines()
    assert head.split() == ["ID", "STATUS", "MODEL", "AGE", "TIME", "TOKENS", "METADATA"]
    assert first.split()[:3] == [ids[0], "completed", CACHED]
    assert len(first.split()) == len(head.split()), "so that awk finds its columns"
    assert (await shell.run("list", "--status", "done")).code == 2


async def test_show_tells_what_a_response_has_lived_through(shell: Shell) -> None:
    response_id = await shell.fine("submit", "Hello [[words=12]]", "--metadata", "order=17")
    await shell.fine("wait", response_id)
    shown = await shell.fine("show", response_id)
    for told in (f"✓ completed {response_id}", "order=17", "queued", "run 1", "first event after", "tokens in"):
        assert told in shown
    assert "You said: Hello" in shown
    [whole] = (await shell.run("show", response_id, "--json")).objects
    assert (whole["status"], whole["job"]["attempts"]) == ("completed", 1)


async def test_cancel_and_delete_tell_of_each(shell: Shell) -> None:
    late, done = await shell.fine("submit", f"Hello {LATE}"), await shell.fine("submit", "Hello")
    await shell.fine("wait", done)
    ran = await shell.run("cancel", late, done)
    assert (ran.code, ran.out) == (1, f"{late} cancelled\n")
    assert "Cannot cancel a completed response" in ran.err
    assert await shell.fine("delete", late, done) == f"{late} deleted\n{done} deleted"
    ran = await shell.run("delete", late)
    assert (ran.code, ran.out) == (2, "")
    assert (await shell.run("cancel", late)).code == 2


async def test_the_master_key_sees_whose_they_are(pollux: Replica, tmp_path: Path) -> None:
    made = {}
    for key, owner in ((BOB, "bob"), (MASTER_KEY, "master")):
        made[await shell_for(pollux, tmp_path, key, POLLUX_MODEL=CACHED).fine("submit", "Hi")] = owner
    master = shell_for(pollux, tmp_path, MASTER_KEY)
    head, *rows = (await master.fine("list")).splitlines()
    assert head.split()[3] == "OWNER"
    assert {row.split()[0]: row.split()[3] for row in rows} == made
    assert len((await master.fine("list", "-q", "--owner", "bob")).split()) == 1


@pytest.mark.parametrize("words", [["list"], ["submit", "-m", "any", "Hi"], ["watch", "any"], ["events"], ["usage"]])
async def test_no_server_is_code_4_and_told_at_once(tmp_path: Path, words: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with asyncio.timeout(8):
        ran = await Shell(tmp_path, {"POLLUX_URL": url}).run(*words)
    assert ran.code == 4
    assert f"{url} can't be reached: Connection refused" in ran.err
    assert "POLLUX_URL" in ran.err
    assert "pollux dev" in ran.err


async def test_a_wrong_key_is_code_2_and_told_where_to_set_it(pollux: Replica, tmp_path: Path) -> None:
    ran = await shell_for(pollux, tmp_path, "sk-wrong").run("list")
    assert ran.code == 2
    assert "POLLUX_API_KEY" in ran.err
    assert str(tmp_path / "pollux" / "config.toml") in ran.err


async def test_a_key_follows_no_redirect(tmp_path: Path) -> None:
    async def elsewhere(_request: web.Request) -> web.Response:
        raise web.HTTPFound("https://login.example/")

    async with running_script(elsewhere) as upstream:
        place = Shell(tmp_path, {"POLLUX_URL": upstream.base_url, "POLLUX_API_KEY": "sk-secret"})
        ran = await place.run("list")
    assert ran.code == 2
    assert "leads to https://login.example/" in ran.err
    assert len(upstream.requests) == 1
