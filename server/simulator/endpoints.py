"""The URLs of the simulator, one function each."""

import asyncio

import orjson
from aiohttp import web

from server.simulator.context import SIMULATOR
from server.simulator.creation import parse_create, start_run
from server.simulator.errors import ApiError, not_found
from server.simulator.reply import response_object
from server.simulator.runs import Run
from server.simulator.turn import Json

# For clients that look before they ask. A create call may name any model.
_MODELS = ("gpt-5.2", "gpt-4o", "o4-mini-deep-research", "simulated")

_SSE_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


def routes() -> list[web.RouteDef]:
    one = "/v1/responses/{id}"
    return [
        web.post("/v1/responses", create),
        web.get(one, retrieve, allow_head=False),
        web.delete(one, delete),
        web.post(f"{one}/cancel", cancel),
        web.get(f"{one}/input_items", list_input_items, allow_head=False),
        web.get("/v1/models", list_models, allow_head=False),
        web.get("/v1/models/{id}", retrieve_model, allow_head=False),
        web.get("/simulator/requests", report),
        web.post("/simulator/reset", reset),
    ]


async def create(request: web.Request) -> web.StreamResponse:
    simulator = request.app[SIMULATOR]
    raw = await request.read()
    run = await start_run(simulator, parse_create(raw), len(raw))
    if run.reply.background and not run.reply.streamed:
        return _json(response_object(run.reply, "queued"))
    try:
        return await (_stream_created(request, run) if run.reply.streamed else _answer(request, run))
    except (asyncio.CancelledError, ConnectionError):
        # The client hung up. OpenAI keeps no synchronous response that nobody received.
        if not run.reply.background:
            simulator.runs.drop(run.reply.id)
        raise


async def retrieve(request: web.Request) -> web.StreamResponse:
    run = _find(request)
    if request.query.get("stream") != "true":
        return _json(run.response())
    if not (run.reply.background and run.reply.streamed):
        message = "This response cannot be streamed because it was not created with stream=true."
        raise ApiError(400, message, param="stream")
    after = _starting_after(request)
    obfuscated = request.query.get("include_obfuscation") != "false"
    response, _ = await _play(request, run, after=after, obfuscated=obfuscated)
    return response


async def cancel(request: web.Request) -> web.Response:
    run = _find(request)
    if not run.reply.background:
        raise ApiError(400, "Cannot cancel a synchronous response.")
    if run.finished:
        raise ApiError(400, f"Cannot cancel a {run.response()['status']} response.")
    run.cancel()
    return _json(run.response())


async def delete(request: web.Request) -> web.Response:
    run = _find(request)
    request.app[SIMULATOR].runs.drop(run.reply.id)
    return _json({"id": run.reply.id, "object": "response", "deleted": True})


async def list_input_items(request: web.Request) -> web.Response:
    items = list(_find(request).reply.items)
    if request.query.get("order", "desc") == "desc":
        items.reverse()
    limit = request.query.get("limit", "20")
    if not limit.isdecimal() or len(limit) > 3 or not 1 <= int(limit) <= 100:
        message = f"Invalid 'limit': expected an integer from 1 to 100, but got '{limit}'."
        raise ApiError(400, message, code="integer_above_max_value", param="limit")
    if (after := request.query.get("after")) is not None:
        places = [n for n, item in enumerate(items) if item["id"] == after]
        items = items[places[0] + 1 :] if places else []
    page = items[: int(limit)]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return _json({"object": "list", "data": page, **ends, "has_more": len(items) > len(page)})


async def list_models(_: web.Request) -> web.Response:
    return _json({"object": "list", "data": [_model(name) for name in _MODELS]})


async def retrieve_model(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    if name not in _MODELS:
        message = f"The model '{name}' does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found", param="model")
    return _json(_model(name))


async def report(request: web.Request) -> web.Response:
    return _json(request.app[SIMULATOR].traffic.report())


async def reset(request: web.Request) -> web.Response:
    simulator = request.app[SIMULATOR]
    simulator.traffic.clear()
    simulator.failures.clear()
    simulator.runs.clear()
    return _json({"reset": True})


async def _answer(request: web.Request, run: Run) -> web.Response:
    """A synchronous answer without a stream, given when the whole of it is due."""
    cut = run.reply.directives.cut_after
    if cut is not None and cut <= run.event_count:
        await run.until_event(cut - 1)
        await _drop_connection(request)
        return web.Response()
    await run.until_finished()
    return _json(run.response())


async def _stream_created(request: web.Request, run: Run) -> web.StreamResponse:
    """The stream of a create call: the only one that `cut_after` and `end_after` end."""
    directives = run.reply.directives
    options = run.reply.request.get("stream_options") or {}
    ends = [n for n in (directives.cut_after, directives.end_after) if n is not None]
    before = min(ends, default=None)
    obfuscated = options.get("include_obfuscation") is not False
    response, count = await _play(request, run, before=before, obfuscated=obfuscated)
    if count == directives.cut_after:
        await _drop_connection(request)
    return response


async def _play(
    request: web.Request, run: Run, *, after: int = -1, before: int | None = None, obfuscated: bool
) -> tuple[web.StreamResponse, int]:
    response = web.StreamResponse(headers=_SSE_HEADERS)
    await response.prepare(request)
    pace = request.app[SIMULATOR].pace
    with pace.playing():
        count = await run.play(response.write, pace, after=after, before=before, obfuscated=obfuscated)
    return response, count


async def _drop_connection(request: web.Request) -> None:
    """Cut the connection without the end of the answer, but with all that was written before.

    Aborting discards what the transport still buffers; a client that does not read within a second loses it.
    """
    transport = request.transport
    if transport is None:
        return
    deadline = asyncio.get_running_loop().time() + 1
    await asyncio.sleep(0)
    # No event tells that the buffer is empty, so it is looked at.
    while transport.get_write_buffer_size() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    transport.abort()


def _find(request: web.Request) -> Run:
    response_id = request.match_info["id"]
    run = request.app[SIMULATOR].runs.find(response_id)
    if run is None:
        raise not_found(response_id)
    return run


def _starting_after(request: web.Request) -> int:
    value = request.query.get("starting_after", "-1")
    try:
        return int(value)
    except ValueError:
        message = f"Invalid 'starting_after': expected an integer, but got '{value}'."
        raise ApiError(400, message, code="invalid_type", param="starting_after") from None


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 1735689600, "owned_by": "simulator"}


def _json(body: Json) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
