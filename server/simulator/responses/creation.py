"""From the body of a create call to the run that answers it, or to the error that refuses it."""

import secrets

from server.simulator.context import Simulator
from server.simulator.errors import ApiError
from server.simulator.intake import begin_reply, check_presence, check_types, parse_object
from server.simulator.reply import Reply
from server.simulator.responses.items import input_items, utterance
from server.simulator.responses.runs import Run
from server.simulator.turn import Json, turn_text

TYPES = (
    ("model", str),
    ("background", bool),
    ("stream", bool),
    ("metadata", dict),
    ("reasoning", dict),
    ("text", dict),
    ("tools", list),
    ("stream_options", dict),
    ("previous_response_id", str),
)


def parse_create(raw: bytes) -> Json:
    """The body of a create call, with the fields that the simulator reads checked."""
    body = parse_object(raw)
    check_types(body, TYPES)
    check_presence(body, ("model", "input"))
    return body


async def start_run(simulator: Simulator, body: Json, size_bytes: int) -> Run:
    """Begin the answer to a create call, unless its directives say that it is refused."""
    reply, items = await begin(simulator, body)
    run = Run(reply, items, size_bytes)
    if reply.background or body.get("store") is not False:
        simulator.runs.add(run)
    return run


async def begin(simulator: Simulator, body: Json) -> tuple[Reply, list[Json]]:
    """The reply to a body, and the items of its input."""
    response_id = f"resp_{secrets.token_hex(25)}"
    items = input_items(body["input"], response_id)
    text = turn_text([utterance(item) for item in items])
    previous_text = _previous_text(simulator, body.get("previous_response_id"))
    schema = _schema((body.get("text") or {}).get("format"))
    return await begin_reply(simulator, response_id, body, text, schema=schema, previous_text=previous_text), items


def _schema(text_format: object) -> object:
    if not isinstance(text_format, dict):
        return None
    return text_format.get("schema") if text_format.get("type") == "json_schema" else None


def _previous_text(simulator: Simulator, response_id: str | None) -> str | None:
    if response_id is None:
        return None
    previous = simulator.runs.find(response_id)
    if previous is None:
        message = f"Previous response with id '{response_id}' not found."
        raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
    return previous.reply.text
