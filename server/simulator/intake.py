"""What every create call goes through, whatever the dialect: its body is read, and its directives are obeyed."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import orjson

from server.simulator.context import Simulator
from server.simulator.directives import Directives, parse_directives
from server.simulator.errors import ApiError, invalid_type
from server.simulator.reply import Reply
from server.simulator.turn import Json

_KINDS = {str: "a string", bool: "a boolean", int: "an integer", dict: "an object", list: "an array"}
_REFUSAL_CODES = {404: "model_not_found", 429: "rate_limit_exceeded"}


def parse_object(raw: bytes) -> Json:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    return body


def check_types(body: Json, kinds: Iterable[tuple[str, type]]) -> None:
    """Refuse a field that the simulator reads and that has another type; null means absent."""
    for name, kind in kinds:
        value = body.get(name)
        # A bool is an int to Python, not to JSON.
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise invalid_type(name, _KINDS[kind], value)


def check_presence(body: Json, names: Iterable[str]) -> None:
    for name in names:
        if body.get(name) is None:
            message = f"Missing required parameter: '{name}'."
            raise ApiError(400, message, code="missing_required_parameter", param=name)


async def begin_reply(
    simulator: Simulator, reply_id: str, body: Json, text: str, *, schema: Any = None, previous_text: str | None = None
) -> Reply:
    """The reply to a create call, unless its directives say that it is refused."""
    directives = parse_directives(text, body.get("metadata") or {})
    directives = simulator.failures.settle(directives, text)
    if directives.status is not None:
        await asyncio.sleep(directives.first_delay_ms / 1000)
        raise _told_to_refuse(directives, directives.status)
    fitting = schema if isinstance(schema, dict) else None
    return Reply(reply_id, body, text, directives, time.time(), fitting, previous_text)


def _told_to_refuse(directives: Directives, status: int) -> ApiError:
    code = directives.error_code or _REFUSAL_CODES.get(status)
    headers = {} if directives.retry_after is None else {"retry-after": directives.retry_after}
    message = f"The simulator was told to answer with status {status}."
    return ApiError(status, message, code=code, headers=headers)
