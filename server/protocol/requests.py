"""Request bodies: parsing and checking them, and making the bodies that are sent to an upstream."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from server.errors import InvalidJson, InvalidType, InvalidValue, MissingParameter, ModelNotFound
from server.protocol import jsontext
from server.protocol.litellm_fields import NOTHING, Wishes, is_litellms, wishes_in
from server.protocol.marks import is_marked
from server.protocol.nesting import is_too_deep
from server.protocol.redaction import MOST_SECRETS, SHORTEST_SECRET, Secrets, shown_tools
from server.protocol.windows import BACKGROUND_OPTIONS, window_s


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """The body of POST /responses. A null value is treated as absent."""

    body: dict[str, Any]
    model: str
    background: bool
    stream: bool
    store: bool
    previous_response_id: str | None
    wishes: Wishes = NOTHING
    marked: bool = False
    """Whether the body may contain marked values, which only one account can use."""


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidJson: says where and why

    """
    if not raw.strip():
        raise InvalidJson("The request body is empty: expected a JSON object.")
    try:
        body = jsontext.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(
            f"The request body is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}."
        ) from error
    if not isinstance(body, dict):
        raise InvalidJson("The request body is not a JSON object.")
    if is_too_deep(raw, body):
        raise InvalidJson("The request body is nested too deeply.")
    return body


def stored_request(raw: bytes) -> dict[str, Any]:
    """The stored request; empty if it is gone or was damaged. Its job can't run then, but can still be ended."""
    try:
        return parse_object(raw)
    except InvalidJson:
        return {}


def without_input(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "input"}


def parse_create(raw: bytes, model_in_path: str | None = None, *, needs_model: bool = True) -> CreateRequest:
    """Read a body. A model in the path, where Azure's clients put it, takes precedence over the body's.

    `needs_model`: the body must name a model. Otherwise the model of one that names none is empty.

    Raises:
        InvalidJson, InvalidType, InvalidValue, MissingParameter, ModelNotFound

    """
    body = parse_object(raw)
    if model_in_path is not None:
        body["model"] = model_in_path
    model = _typed(body, "model", str, "a string")
    if not model and needs_model:
        raise MissingParameter("model")
    if model and jsontext.is_cut(model):
        raise ModelNotFound(model)  # such a name is not valid UTF-8, so it can't be stored
    # Each secret takes that many bytes, so most bodies are too short to hold too many.
    if len(raw) > MOST_SECRETS * SHORTEST_SECRET and (count := len(Secrets(body))) > MOST_SECRETS:
        text = f"Invalid 'tools': expected at most {MOST_SECRETS} credentials and headers, but got {count} instead."
        raise InvalidValue(text, param="tools")
    return CreateRequest(
        body=body,
        model=model or "",
        background=_typed(body, "background", bool, "a boolean") or False,
        stream=_typed(body, "stream", bool, "a boolean") or False,
        store=_typed(body, "store", bool, "a boolean") is not False,
        previous_response_id=_typed(body, "previous_response_id", str, "a string"),
        wishes=wishes_in(body),
        marked=is_marked(raw),
    )


def check_cached(body: dict[str, Any]) -> None:
    """Check the further fields that a cached response echoes or lists, or that decide when its job begins.

    Raises:
        InvalidType, InvalidValue

    """
    given = body.get("input")
    if given is not None and not isinstance(given, str | list):
        raise InvalidType("input", "a string or an array", given)
    for index, item in enumerate(given if isinstance(given, list) else ()):
        if not isinstance(item, dict):
            raise InvalidType(f"input[{index}]", "an object", item)
        for name in ("type", "id"):
            _typed(item, name, str, "a string", f"input[{index}].{name}")
    for name in ("metadata", "text", "reasoning"):
        _typed(body, name, dict, "an object")
    for name in ("tools", "include"):
        _typed(body, name, list, "an array")
    window_s(body)


def _typed(body: dict[str, Any], name: str, wanted: type, expected: str, param: str = "") -> Any:
    value = body.get(name)
    if value is not None and type(value) is not wanted:
        raise InvalidType(param or name, expected, value)
    return value


def forwarded_request(body: dict[str, Any], model: str, previous: str | None) -> dict[str, Any]:
    """The request for an upstream, with its name of the model and the provider's id of the previous response."""
    changed = {name: value for name, value in body.items() if not is_litellms(name)}
    changed["model"] = model
    if previous is not None:
        changed["previous_response_id"] = previous
    return changed


def job_request(
    body: dict[str, Any], model: str, previous: str | None, *, background: bool = False, stream: bool = True
) -> dict[str, Any]:
    """The request that a job sends: streamed, and without `background` and its options, which Pollux does itself.

    With `background` the provider runs it in its own background too, so that its run survives the end of ours. It is
    not told of the completion window even then: the wait was ours, and OpenAI allows no window with `stream`.
    """
    changed = {name: value for name, value in body.items() if name not in ("background", BACKGROUND_OPTIONS)}
    if background:
        changed["background"] = True
    return forwarded_request({**changed, "stream": stream}, model, previous)


def input_items(body: dict[str, Any], response_id: str) -> list[dict[str, Any]]:
    """The input as items with ids, in the order given: what GET …/input_items lists.

    Ids that the client did not give are derived, so that they are the same in every answer.
    """
    given = body.get("input")
    if given is None:
        return []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [_item(item, f"{response_id}/{index}") for index, item in enumerate(items)]


def _item(item: dict[str, Any], seed: str) -> dict[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    prefix = "msg" if kind == "message" else kind.split("_")[0]
    derived = f"{prefix}_{hashlib.sha256(seed.encode()).hexdigest()[:48]}"
    normalised = {"type": kind, "id": item.get("id") or derived, **_without_null_id(item)}
    if isinstance(tools := item.get("tools"), list):
        normalised["tools"] = shown_tools(tools)
    if kind == "message":
        normalised.setdefault("status", "completed")
        normalised["content"] = _content(item.get("role"), item.get("content"))
    return normalised


def _without_null_id(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("id", "type")}


def _content(role: Any, content: Any) -> Any:
    if not isinstance(content, str):
        return content if content is not None else []
    if role == "assistant":
        return [{"type": "output_text", "text": content, "annotations": []}]
    return [{"type": "input_text", "text": content}]
