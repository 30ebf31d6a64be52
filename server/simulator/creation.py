"""From the body of a create call to the run that answers it, or to the error that refuses it."""

import asyncio
import secrets
import time

import orjson

from server.simulator.context import Simulator
from server.simulator.directives import Directives, parse_directives
from server.simulator.errors import ApiError, invalid_type
from server.simulator.reply import Reply
from server.simulator.runs import Run
from server.simulator.turn import Json, input_items, turn_text

_REFUSAL_CODES = {404: "model_not_found", 429: "rate_limit_exceeded"}


def parse_create(raw: bytes) -> Json:
    """The body of a create call, with the fields that the simulator reads checked."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    for name, kind, expected in (
        ("model", str, "a string"),
        ("background", bool, "a boolean"),
        ("stream", bool, "a boolean"),
        ("metadata", dict, "an object"),
        ("reasoning", dict, "an object"),
        ("text", dict, "an object"),
        ("tools", list, "an array"),
        ("stream_options", dict, "an object"),
        ("previous_response_id", str, "a string"),
    ):
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise invalid_type(name, expected, body[name])
    for name in ("model", "input"):
        if body.get(name) is None:
            message = f"Missing required parameter: '{name}'."
            raise ApiError(400, message, code="missing_required_parameter", param=name)
    return body


async def start_run(simulator: Simulator, body: Json, size_bytes: int) -> Run:
    """Begin the answer to a create call, unless its directives say that it is refused."""
    response_id = f"resp_{secrets.token_hex(25)}"
    items = input_items(body["input"], response_id)
    text = turn_text(items)
    previous_text = _previous_text(simulator, body.get("previous_response_id"))
    directives = parse_directives(text, body.get("metadata") or {})
    directives = simulator.failures.settle(directives, text)
    if directives.status is not None:
        await asyncio.sleep(directives.first_delay_ms / 1000)
        raise _told_to_refuse(directives, directives.status)
    reply = Reply(response_id, body, items, text, previous_text, directives, time.time())
    run = Run(reply, size_bytes)
    if reply.background or body.get("store") is not False:
        simulator.runs.add(run)
    return run


def _previous_text(simulator: Simulator, response_id: str | None) -> str | None:
    if response_id is None:
        return None
    previous = simulator.runs.find(response_id)
    if previous is None:
        message = f"Previous response with id '{response_id}' not found."
        raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
    return previous.reply.text


def _told_to_refuse(directives: Directives, status: int) -> ApiError:
    code = directives.error_code or _REFUSAL_CODES.get(status)
    headers = {} if directives.retry_after is None else {"retry-after": directives.retry_after}
    message = f"The simulator was told to answer with status {status}."
    return ApiError(status, message, code=code, headers=headers)
