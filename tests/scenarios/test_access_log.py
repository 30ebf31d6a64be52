"""The access log, and what the lines of a request have in common."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from server.logs import formatter
from tests.support.replica import ALICE, CACHED, Replica, create, ended, make_config, running_replica
from tests.support.scripts import WELL, answering, plain, streaming
from tests.support.upstreams import running_script
from tests.support.waiting import wait_until

LEAKED = "sk-proj-0123456789abcdefghijklmnop"


class Lines(logging.Handler):
    """The lines as they would be written, rendered in the tasks that log them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(formatter("json"))
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))

    def of(self, message: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.text) if line["message"] == message]


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, handler = logging.getLogger("pollux"), Lines()
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(before)
    logger.removeHandler(handler)


async def test_each_answer_has_a_line_without_what_the_client_wrote(
    simulator: str, store_url: str, lines: Lines
) -> None:
    async with running_replica(make_config(simulator, access_log=True), store_url) as pollux, pollux.http() as http:
        body = {"model": CACHED, "input": "a-word-of-the-client"}
        answer = await http.post("responses?key=a-word-of-the-client", json=body, headers={"X-Request-Id": "mine"})
        size = len(await answer.read())
        await (await http.get("responses/a-word-of-the-client?x=sk-secret")).read()
        await (await http.get(f"{pollux.url}/a-word-of-the-client")).read()
        async with pollux.http("sk-wrong") as stranger:
            await (await stranger.get("models")).read()
        await wait_until(lambda: len(lines.of("request answered")) == 4)
        await malformed(pollux)
        await wait_until(lambda: len(lines.of("request answered")) == 5)
    first, unknown, nowhere, refused, broken = lines.of("request answered")
    assert first.pop("time")
    assert 0 < first.pop("seconds") < 20
    assert size < first.pop("bytes") < size + 1000, "headers included"
    assert first == {
        "level": "info",
        "logger": "pollux.access",
        "message": "request answered",
        "method": "POST",
        "route": "/responses",
        "status": 200,
        "request_id": "mine",
        "owner": "alice",
    }
    assert (unknown["route"], unknown["status"]) == ("/responses/{id}", 404)
    assert (nowhere["route"], nowhere["status"]) == ("none", 404)
    assert (refused["status"], refused.get("owner")) == (401, None)
    assert (broken["route"], broken["status"]) == ("malformed", 400)
    assert broken["request_id"]
    assert not [line for line in lines.text if "a-word-of" in line or "sk-" in line or ALICE in line]


async def test_an_answer_that_is_cut_off_has_its_line_too(store_url: str, simulator: str, lines: Lines) -> None:
    """What a client that hangs up has left, and a wait that it did not have the patience for."""
    async with running_replica(make_config(simulator, access_log=True), store_url) as pollux, pollux.http() as http:
        body = {"model": CACHED, "input": "runs [[words=200]] [[delay_ms=50]]", "background": True, "stream": True}
        stream = await http.post("responses", json=body)
        opening = await stream.content.readuntil(b"\n\n")
        stream.close()
        await wait_until(lambda: lines.of("request answered"))
        response_id = json.loads(opening.split(b"\ndata: ")[1])["response"]["id"]
        await (await http.get(f"responses/{response_id}")).read()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await http.get(f"responses/{response_id}?wait=30")
        await wait_until(lambda: len(lines.of("request answered")) == 3)
    cut, whole, waiting = lines.of("request answered")
    assert (cut["status"], cut["cut"], cut["owner"], cut["route"]) == (200, True, "alice", "/responses")
    assert cut["bytes"] > len(opening)
    assert (whole["status"], "cut" in whole) == (200, False)
    assert (waiting["status"], waiting["cut"], waiting["bytes"]) == (499, True, 0)
    assert 0.1 < waiting["seconds"] < 10
    assert waiting["request_id"]


async def test_of_probes_and_scrapes_only_failures_are_told(simulator: str, store_url: str, lines: Lines) -> None:
    async with running_replica(make_config(simulator, access_log=True), store_url) as pollux, pollux.http() as http:
        for path in ("livez", "readyz", "health/readiness", "readyz/"):
            assert (await http.get(f"{pollux.url}/{path}")).status == 200
        assert (await http.get(f"{pollux.url}/metrics")).status == 401
        await wait_until(lambda: lines.of("request answered"))
    assert [(line["route"], line["status"]) for line in lines.of("request answered")] == [("/metrics", 401)]


async def malformed(pollux: Replica) -> None:
    host, port = pollux.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/models a-word-of-the-client\r\nAuthorization: Bearer sk-x\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()


async def test_it_is_off_by_default(pollux: Replica, lines: Lines) -> None:
    async with pollux.http() as http:
        await (await http.get("models")).read()
    assert lines.of("request answered") == []


async def test_all_lines_about_a_job_name_its_request_and_its_response(store_url: str, lines: Lines) -> None:
    async with (
        running_script(answering([plain(500, {"error": {"message": LEAKED}}), streaming(*WELL)])) as upstream,
        running_replica(make_config(upstream.base_url), store_url) as pollux,
        pollux.http() as http,
    ):
        response_id = await create(pollux, "x")
        await ended(http, response_id)
        await wait_until(lambda: lines.of("response ended"))
        messages = (
            "response created",
            "response started",
            "a call to a provider failed, trying again",
            "response ended",
        )
        told = [line for message in messages for line in lines.of(message)]
        assert len(told) == 4
        assert {line["response_id"] for line in told} == {response_id}
        assert len({line["request_id"] for line in told}) == 1
        [again] = lines.of(messages[2])
        assert again["pause_s"] >= 0
        assert "trace_id" not in again
    assert LEAKED not in "".join(lines.text)
