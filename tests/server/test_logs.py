"""Log lines: their form, what is bound to a task, and what a value can't do."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from typing import Any

import pytest
from structlog.contextvars import clear_contextvars

from server.errors import Internal
from server.logs import bind, formatter
from server.upstream import poll


@pytest.fixture(autouse=True)
def _unbound() -> None:
    clear_contextvars()


def record(message: str = "response %s", *values: object, error: bool = False, **fields: Any) -> logging.LogRecord:
    info = None
    if error:
        try:
            int("it\nbroke")
        except ValueError:
            info = sys.exc_info()
    made = logging.LogRecord("pollux.jobs", logging.INFO, __file__, 1, message, values or ("ended",), info)
    made.created = 1_700_000_000.25
    vars(made).update(fields)
    return made


def test_a_line_of_json() -> None:
    line = json.loads(formatter("json").format(record(response_id="r", status=None, event="evt_1", odd={1})))
    assert line == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "pollux.jobs",
        "message": "response ended",
        "response_id": "r",
        "event": "evt_1",
        "odd": "{1}",
    }


def test_a_line_of_text() -> None:
    line = formatter("console").format(record(response_id="r", status=None, event="evt_1"))
    assert line == "22:13:20 INFO    response ended response_id=r event=evt_1"


def test_an_error_brings_its_stack() -> None:
    line = json.loads(formatter("json").format(record(error=True)))
    assert line["stack"].startswith("Traceback")
    assert "ValueError" in line["stack"]
    assert "exc_info" not in line
    assert "\n    Traceback" in formatter("console").format(record(error=True))


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_and_no_message_begins_a_line_of_its_own(form: str) -> None:
    forged = "x\r\n12:00:00 ERROR all is lost\x1b[2J\u2028"
    bind(request_id=forged)
    line = formatter(form).format(record("said %s", forged, owner=forged))
    assert len(line.splitlines()) == 1 or form == "json"
    assert "\n" not in line
    assert "\x1b" not in line


def test_no_text_of_an_error_begins_a_line_that_looks_like_ours() -> None:
    made = record()
    error = ValueError("x\n12:00:00 ERROR   all is lost\r\x1b[2J")
    made.exc_info = (ValueError, error, None)
    first, *stack = formatter("console").format(made).split("\n")
    assert first.startswith("22:13:20")
    assert len(stack) == 2
    assert all(line.startswith("    ") and line.isprintable() for line in stack)


async def test_what_is_bound_is_on_each_line_of_the_task_and_of_those_that_it_starts() -> None:
    rendered = formatter("json")

    async def inner() -> dict[str, Any]:
        bind(response_id="inner")
        line: dict[str, Any] = json.loads(rendered.format(record(owner="alice")))
        return line

    bind(request_id="req_1", owner="bound")
    line = await asyncio.create_task(inner())
    assert (line["request_id"], line["response_id"], line["owner"]) == ("req_1", "inner", "alice")
    assert "response_id" not in json.loads(rendered.format(record()))


async def test_a_loop_that_polls_for_several_names_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "FIRST_PAUSE_S", 0.0)
    told: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(formatter("json").format(record))

    async def broken() -> bytes:
        raise RuntimeError

    bind(request_id="of-the-first-waiter", response_id="r")
    handler = Lines()
    poll.log.addHandler(handler)
    try:
        with pytest.raises(Internal):
            await poll.Pollers().wait("key", broken, lambda _: True, 5)
        poll.log.warning("the waiter's own")
    finally:
        poll.log.removeHandler(handler)
    loop, own = map(json.loads, told)
    assert (loop["message"], loop["response_id"], loop.get("request_id")) == ("native poll broke", "r", None)
    assert own["request_id"] == "of-the-first-waiter"


def test_a_terminal_gets_colours_and_the_same_words() -> None:
    record = logging.makeLogRecord({"name": "pollux.test", "levelname": "WARNING", "msg": "mind the gap", "order": 17})
    plain, coloured = (formatter("console", coloured=coloured).format(record) for coloured in (False, True))
    assert "\033[33mWARNING" in coloured
    assert re.sub(r"\033\[\d+m", "", coloured).split() == plain.split()
    assert "\033" not in plain
