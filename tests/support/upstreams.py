"""Upstreams for tests, each on a free port of this process: simulated, replayed, played, or scripted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from server.simulator import listening_simulator

RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAX_BODY_BYTES = 64 * 1024 * 1024
# What the test server makes itself and a recording must not overrule.
_HOP_HEADERS = {"connection", "content-encoding", "content-length", "transfer-encoding"}


@dataclass(frozen=True)
class SeenRequest:
    """A request as it arrived."""

    method: str
    path_qs: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(frozen=True)
class Upstream:
    """A running upstream: where it is, and what it was asked so far, in order of arrival."""

    base_url: str
    requests: list[SeenRequest] = field(default_factory=list)


def running_simulator(api_key: str | None = None) -> AbstractAsyncContextManager[str]:
    """A simulator with nothing in it; gives its base URL, `http://127.0.0.1:PORT/v1`."""
    return listening_simulator(api_key=api_key)


@asynccontextmanager
async def running_script(handler: RequestHandler) -> AsyncIterator[Upstream]:
    """An upstream that does whatever `handler` does, for every method and path.

    A handler is cancelled when its client hangs up, and at the end of the block.
    """
    seen: list[SeenRequest] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        seen.append(SeenRequest(request.method, request.path_qs, request.headers.copy(), body))
        return await handler(request)

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        yield Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", seen)
    finally:
        await runner.cleanup()


def running_replay(recording: Path, *, gap_s: float = 0.0) -> AbstractAsyncContextManager[Upstream]:
    """An upstream that streams a recording, one event's JSON per line, to every create call with `stream`.

    The bytes of each line are kept. The stream ends where the file ends, whether that is a terminal event
    or not.
    """
    frames = [_frame(line) for line in recording.read_bytes().splitlines() if line.strip()]

    async def handler(request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) != ("POST", "/v1/responses"):
            return _refusal(404, f"The replay serves no {request.method} {request.path}.")
        if orjson.loads(await request.read()).get("stream") is not True:
            return _refusal(400, "The replay serves streams only.")
        return await _stream(request, frames, {"content-type": "text/event-stream; charset=utf-8"}, gap_s)

    return running_script(handler)


def running_dialect(recording: Path, path: str) -> AbstractAsyncContextManager[Upstream]:
    """An upstream that streams a recording of Chat Completions or Messages to every POST whose path ends so.

    Chat Completions end with `[DONE]`, as all that were recorded did.
    """
    lines = [line for line in recording.read_bytes().splitlines() if line.strip()]
    if path.endswith("/messages"):
        frames = [_frame(line) for line in lines]
    else:
        frames = [b"data: %b\n\n" % line for line in [*lines, b"[DONE]"]]

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method != "POST" or not request.path.endswith(path):
            return _refusal(404, f"There is no {request.method} {request.path} here.")
        return await _stream(request, frames, {"content-type": "text/event-stream"})

    return running_script(handler)


def running_exchange(recording: Path) -> AbstractAsyncContextManager[Upstream]:
    """An upstream that plays the answers of a recorded exchange.

    A request is answered by the first pair of its method and path that was not used yet, else by the last
    one of them again; without any, by a 404. In the query neither the order counts nor `stream=false`, which
    only says the default.
    """
    answers: dict[_Target, list[dict[str, Any]]] = {}
    for pair in orjson.loads(recording.read_bytes()):
        target = _target(pair["request"]["method"], URL(pair["request"]["path"]))
        answers.setdefault(target, []).append(pair["response"])

    async def handler(request: web.Request) -> web.StreamResponse:
        left = answers.get(_target(request.method, request.rel_url))
        if left is None:
            return _refusal(404, f"The exchange has no {request.method} {request.path_qs}.")
        return await _recorded(request, left.pop(0) if len(left) > 1 else left[0])

    return running_script(handler)


_Target = tuple[str, str, tuple[tuple[str, str], ...]]


def _target(method: str, url: URL) -> _Target:
    query = sorted(pair for pair in url.query.items() if pair != ("stream", "false"))
    return method, url.path, tuple(query)


async def _recorded(request: web.Request, answer: dict[str, Any]) -> web.StreamResponse:
    headers = CIMultiDict(
        (name, value)
        for name, values in answer["headers"].items()
        for value in values
        if name.lower() not in _HOP_HEADERS
    )
    if "sse" in answer:
        return await _stream(request, [answer["sse"].encode()], headers)
    return web.Response(status=answer["status"], body=orjson.dumps(answer["json"]), headers=headers)


async def _stream(
    request: web.Request, frames: Sequence[bytes], headers: Mapping[str, str], gap_s: float = 0.0
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for frame in frames:
        await response.write(frame)
        await asyncio.sleep(gap_s)
    return response


def _frame(line: bytes) -> bytes:
    kind: str = orjson.loads(line)["type"]
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), line)


def _refusal(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    body = orjson.dumps({"error": error})
    return web.Response(status=status, body=body, content_type="application/json")


async def seen_by(simulator: str) -> dict[str, Any]:
    """What a simulated provider was asked, and how many answers it is still giving."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{simulator.removesuffix('/v1')}/simulator/requests") as answer,
    ):
        seen: dict[str, Any] = await answer.json()
        return seen


async def runs_of(simulator: str) -> int:
    """How many responses it was asked to make."""
    return sum(request["path"] == "/v1/responses" for request in (await seen_by(simulator))["requests"])


async def nothing_open(simulator: str) -> bool:
    """Whether it is giving no answer at the moment."""
    return bool((await seen_by(simulator))["open"] == 0)
