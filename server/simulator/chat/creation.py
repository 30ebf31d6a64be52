"""From the body of a create call to the reply, or to the error that refuses it."""

import secrets
from typing import Any

from server.simulator.context import Simulator
from server.simulator.errors import invalid_type
from server.simulator.intake import begin_reply, check_presence, check_types, parse_object
from server.simulator.reply import Reply
from server.simulator.turn import Json, Utterance, parts_text, turn_text

_TYPES = (
    ("model", str),
    ("messages", list),
    ("stream", bool),
    ("stream_options", dict),
    ("metadata", dict),
    ("response_format", dict),
    ("tools", list),
)
# Of the two formats of JSON, `json_object` leaves open what the object is.
_ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}


async def create_reply(simulator: Simulator, raw: bytes, deployment: str | None) -> Reply:
    """The reply to a create call; Azure names the deployment in the path, and then no model is needed."""
    body = parse_object(raw)
    if body.get("model") is None and deployment is not None:
        body["model"] = deployment
    check_types(body, _TYPES)
    check_presence(body, ("model", "messages"))
    text = turn_text([_utterance(message, n) for n, message in enumerate(body["messages"])])
    reply_id = f"chatcmpl-{secrets.token_hex(16)}"
    return await begin_reply(simulator, reply_id, body, text, schema=_schema(body.get("response_format") or {}))


def _utterance(message: Any, n: int) -> Utterance:
    if not isinstance(message, dict):
        raise invalid_type(f"messages[{n}]", "an object", message)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise invalid_type(f"messages[{n}].role", "a string", role)
    if content is not None and not isinstance(content, str | list):
        raise invalid_type(f"messages[{n}].content", "a string or an array", content)
    counts = role in {"user", "tool", "function"}
    return Utterance(role == "assistant", parts_text(content) if counts else None)


def _schema(response_format: Json) -> Any:
    if response_format.get("type") == "json_object":
        return _ANY_OBJECT
    named = response_format.get("json_schema")
    return named.get("schema") if isinstance(named, dict) else None
