"""Refusals: what every error answer must look like and must not tell, checked here once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from tests.support.replica import ALICE, BOB, MASTER_KEY

UPSTREAM_KEY = "sk-upstream-secret"
SECRETS = (ALICE, BOB, MASTER_KEY, UPSTREAM_KEY)

_NEVER_TOLD = (*SECRETS, "Traceback", "127.0.0.1", "aiohttp")
_SANE_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")


@dataclass(frozen=True)
class Refusal:
    """An error as a client reads it."""

    status: int
    type: str
    code: str | None
    param: str | None
    message: str
    headers: Mapping[str, str]

    @property
    def fields(self) -> tuple[int, str, str | None, str | None]:
        """All but the words."""
        return self.status, self.type, self.code, self.param


async def refusal(answer: aiohttp.ClientResponse) -> Refusal:
    """Read an error answer, and check everything that holds for all of them."""
    return checked(answer.status, answer.headers, await answer.read())


def checked(status: int, headers: Mapping[str, str], raw: bytes) -> Refusal:
    assert status >= 400, raw[:500]
    assert headers["Content-Type"].startswith("application/json"), raw[:500]
    assert _SANE_ID.fullmatch(headers["X-Request-Id"])
    assert headers["Server"] == "pollux", "no version"
    body = orjson.loads(raw)
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"].isprintable()
    assert 0 < len(error["message"]) < 1000, "a message is for reading"
    assert isinstance(error["type"], str)
    assert all(error[name] is None or isinstance(error[name], str) for name in ("param", "code"))
    for word in _NEVER_TOLD:
        assert word not in raw.decode(), f"it tells {word}"
    return Refusal(status, error["type"], error["code"], error["param"], error["message"], headers)


async def exchange(url: str, request: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """Send bytes as they are, which no client library would, and read one answer: status, headers, body."""
    reader, writer = await asyncio.open_connection(URL(url).host, URL(url).port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = CIMultiDict((name, value) for name, _, value in (line.partition(": ") for line in head[1:-2]))
            body = await reader.readexactly(int(headers["Content-Length"]))
        return int(head[0].split()[1]), headers, body
    finally:
        writer.close()
        await writer.wait_closed()
