"""Servers that break, mislead, or are none of ours."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from server.cli.client import BREAK_S
from tests.support.shell import Shell
from tests.support.upstreams import running_script

COMMANDS = (
    *("list", "submit -m any Hi", "submit -m any Hi --stream", "submit Hi", "show resp_1", "watch resp_1"),
    *("watch resp_1 resp_2", "watch resp_1 --json", "wait resp_1", "cancel resp_1", "events", "top --once"),
    *("usage", "webhooks list", "webhooks create http://x", "webhooks test we_1", "webhooks deliveries we_1"),
)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("<html>Welcome</html>", "text/html"),
        ("[1, 2]", "application/json"),
        ('{"ok": true}', "application/json"),
        ('{"data": [{"x": 1}], "next_page": null}', "application/json"),
        ("data: <html>\n\n", "text/event-stream"),
        ('data: {"x": 1}\n\n', "text/event-stream"),
    ],
)
async def test_what_is_no_pollux_is_told_by_every_command(body: str, kind: str, tmp_path: Path) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=body, content_type=kind)

    async with running_script(answer) as upstream:
        shell = Shell(tmp_path, {"POLLUX_URL": upstream.base_url})
        for command in COMMANDS:
            ran = await shell.run(*command.split())
            assert ran.code == 4, command
            assert "no Pollux" in ran.err, command
        ran = await shell.run("doctor")
        assert ran.code == 1
        assert "no Pollux" in ran.out


async def test_a_proxy_without_a_server_behind_it_is_told_and_waited_for(tmp_path: Path) -> None:
    async def answer(_request: web.Request) -> web.Response:
        if len(upstream.requests) <= 2:
            return web.Response(text="<html>Bad gateway</html>", content_type="text/html", status=502)
        return web.json_response({"data": [], "next_page": None})

    async with running_script(answer) as upstream:
        shell = Shell(tmp_path, {"POLLUX_URL": upstream.base_url})
        ran = await shell.run("doctor")
        assert ran.code == 1
        assert "answered 502" in ran.out
        ran = await shell.run("list")
    assert ran.code == 0
    assert ran.err.count("trying again") == 1


async def test_an_answer_that_breaks_is_asked_for_again_but_not_in_a_rush(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        if len(upstream.requests) <= 2:
            assert request.transport is not None
            request.transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"data": [')
            request.transport.close()
        return web.json_response({"data": [], "next_page": None})

    async with running_script(answer) as upstream:
        began = time.monotonic()
        ran = await Shell(tmp_path, {"POLLUX_URL": upstream.base_url}).run("list")
    assert (ran.code, len(upstream.requests)) == (0, 3)
    assert time.monotonic() - began > 2 * BREAK_S
    assert "trying again" in ran.err


@pytest.mark.parametrize("how", ["cut", "ended"])
async def test_a_stream_that_stops_before_all_have_ended_is_gone_on_with(how: str, tmp_path: Path) -> None:
    cursors: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        cursors.append(request.headers.get("Last-Event-ID"))
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        number = len(cursors)
        data = {"id": f"resp_{number}", "status": "failed" if number == 2 else "completed"}
        event: dict[str, Any] = {"type": f"response.{data['status']}", "created_at": 1, "data": data}
        await stream.write(f"id: {number}\ndata: {json.dumps(event)}\n\n".encode())
        if number == 1 and how == "cut":
            assert request.transport is not None
            request.transport.close()
        return stream

    async with running_script(answer) as upstream:
        ran = await Shell(tmp_path, {"POLLUX_URL": upstream.base_url}).run("watch", "resp_1", "resp_2")
    assert (ran.code, cursors) == (1, [None, "1"])
    assert len(ran.out.splitlines()) == 2


async def test_those_that_are_gone_end_a_watch_with_code_1(tmp_path: Path) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="id: 1\n\n", content_type="text/event-stream")

    async with running_script(answer) as upstream:
        ran = await Shell(tmp_path, {"POLLUX_URL": upstream.base_url}).run("watch", "resp_1", "resp_2")
    assert (ran.code, ran.out) == (1, "")


async def test_a_server_without_tls_that_is_asked_with_it_is_told(tmp_path: Path) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"data": [], "next_page": None})

    async with running_script(answer) as upstream:
        ran = await Shell(tmp_path, {"POLLUX_URL": upstream.base_url.replace("http", "https")}).run("list")
    assert ran.code == 4
    assert "without TLS" in ran.err


async def test_no_wait_is_longer_than_proxies_let_a_connection_be_silent(tmp_path: Path) -> None:
    waits: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        if "wait" in request.query:
            waits.append(int(request.query["wait"]))
        if request.path.startswith("/v1/jobs/"):
            return web.json_response({"error": {"message": "Response with id 'resp_1' not found."}}, status=404)
        status = "completed" if len(waits) % 2 else "in_progress"
        response = {"object": "response", "id": "resp_1", "status": status}
        body = {"data": [response]} if request.path == "/v1/responses" else response
        return web.json_response(body, headers={"ETag": f'"{len(waits)}"'})

    async with running_script(answer) as upstream:
        shell = Shell(tmp_path, {"POLLUX_URL": upstream.base_url})
        for command in ("wait", "watch"):
            assert (await shell.run(command, "resp_1")).code == 0
    assert waits
    assert max(waits) <= 25
