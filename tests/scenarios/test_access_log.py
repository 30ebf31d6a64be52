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
