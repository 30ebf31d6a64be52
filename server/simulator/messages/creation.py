"""From the body of a create call to the reply, or to the error that refuses it."""

import secrets
from collections.abc import Iterator
from typing import Any

from server.simulator.context import Simulator
from server.simulator.errors import ApiError, invalid_type
from server.simulator.intake import begin_reply, check_types, parse_object
from server.simulator.messages.signature import sign
from server.simulator.reply import Reply
from server.simulator.turn import Json, Utterance, parts_text, turn_text

_TYPES = (
    ("model", str),
    ("messages", list),
    ("max_tokens", int),
    ("stream", bool),
    ("metadata", dict),
    ("output_config", dict),
    ("thinking", dict),
    ("tools", list),
)
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")


async def create_reply(simulator: Simulator, raw: bytes, *, limited: bool = True) -> Reply:
    """The reply to a body. `limited`: it must limit the output; else it may not even speak of that."""
    body = parse_object(raw)
    check_types(body, _TYPES)
    for name in ("model", "messages", *(("max_tokens",) if limited else ())):
        if body.get(name) is None:
            raise ApiError(400, f"{name}: Field required")
    if unknown := [] if limited else [name for name in body if name not in _COUNTED]:
        raise ApiError(400, f"{unknown[0]}: Extra inputs are not permitted")
    if limited and body["max_tokens"] < 1:
        raise ApiError(400, "max_tokens: Input should be greater than or equal to 1")
    if not body["messages"]:
        raise ApiError(400, "messages: at least one message is required")
    text = turn_text([_utterance(message, n) for n, message in enumerate(body["messages"])])
    form = (body.get("output_config") or {}).get("format")
    schema = form.get("schema") if isinstance(form, dict) else None
    reply = await begin_reply(simulator, f"msg_01{secrets.token_hex(11)}", body, text, schema=schema)
    if reply.directives.custom_tool is not None:
        raise ApiError(400, "Messages have no custom tools: use the directive 'tool'.", code="invalid_directive")
    return reply


def _utterance(message: Any, n: int) -> Utterance:
    if not isinstance(message, dict):
        raise invalid_type(f"messages.{n}", "an object", message)
    role, content = message.get("role"), message.get("content")
    if role not in {"user", "assistant"}:
        raise ApiError(400, f"messages.{n}.role: Input should be 'user' or 'assistant'")
    if not isinstance(content, str | list):
        raise invalid_type(f"messages.{n}.content", "a string or an array", content)
    for place, block in _thoughts(content):
        if block.get("signature") != sign(str(block.get("thinking"))):
            message = f"messages.{n}.content.{place}: Invalid `signature` in `thinking` block"
            raise ApiError(400, message)
    return Utterance(role == "assistant", parts_text(content))


def _thoughts(content: str | list[Any]) -> Iterator[tuple[int, Json]]:
    for place, block in enumerate(content if isinstance(content, list) else []):
        if isinstance(block, dict) and block.get("type") == "thinking":
            yield place, block
