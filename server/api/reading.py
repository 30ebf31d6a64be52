"""Reads the body of a request by its model, and refuses one that does not fit as all others are refused."""

from __future__ import annotations

from typing import Any, TypeVar

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from server.api.body import read_body
from server.api.models.base import Described
from server.errors import InvalidType, InvalidValue, MissingParameter, PolluxError
from server.protocol.requests import parse_object

Model = TypeVar("Model", bound=Described)

_EXPECTED = {"string_type": "a string", "bool_type": "a boolean", "list_type": "an array", "model_type": "an object"}


async def read_as(request: web.Request, model: type[Model], *, optional: bool = False) -> Model:
    """The body as this model has it. A field that is null counts as left out. `optional`: an empty body is none.

    Raises:
        InvalidJson, InvalidType, InvalidValue, MissingParameter
        PolluxError: what a validator of the model raises, and what `read_body` does

    """
    raw = await read_body(request)
    body = {} if optional and not raw.strip() else parse_object(raw)
    try:
        return model.model_validate({name: value for name, value in body.items() if value is not None})
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0]) from None


def _refusal(first: ErrorDetails) -> PolluxError:
    param = _param(first["loc"])
    if first["type"] == "missing":
        return MissingParameter(param)
    if expected := _EXPECTED.get(first["type"]):
        return InvalidType(param, expected, first["input"])
    return InvalidValue(f"Invalid value for '{param}': {first['msg']}.", param=param)


def _param(place: tuple[Any, ...]) -> str:
    """As `a.b[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
