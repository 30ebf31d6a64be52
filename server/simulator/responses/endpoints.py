"""The URLs of the Responses API, one function each."""

import asyncio

from aiohttp import web

from server.simulator.answering import cut_unanswered, json_response, stream, stream_created
from server.simulator.context import SIMULATOR
from server.simulator.errors import ApiError, not_found
from server.simulator.responses.compaction import compact, count_tokens
from server.simulator.responses.creation import parse_create, start_run
from server.simulator.responses.objects import response_object
from server.simulator.responses.runs import Run


def routes(base: str) -> list[web.RouteDef]:
    """The routes below a base path that ends in a slash, which may be a pattern."""
    one = f"{base}responses/{{id}}"
    return [
        web.post(f"{base}responses", create),
        web.post(f"{base}responses/input_tokens", count_tokens),
        web.post(f"{base}responses/compact", compact),
        web.get(one, retrieve, allow_head=False),
        web.delete(one, delete),
        web.post(f"{one}/cancel", cancel),
        web.get(f"{one}/input_items", list_input_items, allow_head=False),
    ]


async def create(request: web.Request) -> web.StreamResponse:
    simulator = request.app[SIMULATOR]
    raw = await request.read()
    run = await start_run(simulator, parse_create(raw), len(raw))
    if run.reply.background and not run.reply.streamed:
        return json_response(response_object(run.reply, "queued"))
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
        return json_response(run.response())
    if not (run.reply.background and run.reply.streamed):
        message = "This response cannot be streamed because it was not created with stream=true."
        raise ApiError(400, message, param="stream")
    after = _starting_after(request)
    obfuscated = request.query.get("include_obfuscation") != "false"
    pace = request.app[SIMULATOR].pace
    response, _ = await stream(request, lambda write: run.play(write, pace, after=after, obfuscated=obfuscated))
    return response


async def cancel(request: web.Request) -> web.Response:
    run = _find(request)
    if not run.reply.background:
        raise ApiError(400, "Cannot cancel a synchronous response.")
    if run.finished:
        raise ApiError(400, f"Cannot cancel a {run.response()['status']} response.")
    run.cancel()
    return json_response(run.response())


async def delete(request: web.Request) -> web.Response:
    run = _find(request)
    request.app[SIMULATOR].runs.drop(run.reply.id)
    return json_response({"id": run.reply.id, "object": "response", "deleted": True})


async def list_input_items(request: web.Request) -> web.Response:
    items = list(_find(request).items)
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
    return json_response({"object": "list", "data": page, **ends, "has_more": len(items) > len(page)})


async def _answer(request: web.Request, run: Run) -> web.Response:
    """A synchronous answer without a stream, given when the whole of it is due."""
    if await cut_unanswered(request, run.reply.directives, run.playback, run.event_count):
        return web.Response()
    await run.playback.until(run.event_count - 1)
    return json_response(run.response())


async def _stream_created(request: web.Request, run: Run) -> web.StreamResponse:
    options = run.reply.request.get("stream_options") or {}
    obfuscated = options.get("include_obfuscation") is not False
    pace = request.app[SIMULATOR].pace
    return await stream_created(
        request,
        run.reply.directives,
        lambda write, before: run.play(write, pace, before=before, obfuscated=obfuscated),
    )


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
