"""What all models of bodies have in common."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WrapValidator

_EXTENSION = {"x-pollux-extension": True}


def _as_it_is(given: Any, _validate: Any) -> Any:
    return given


Any_ = TypeVar("Any_")
PASSED = WrapValidator(_as_it_is)
Passed = Annotated[Any_, PASSED]
"""A field that is described and not read here: the provider gets it as it is, and judges it."""


class Described(BaseModel):
    """An object whose further fields nobody need know. A description does not forbid any: more may come."""

    # Built when it is first needed: most processes never are asked for the description.
    model_config = ConfigDict(defer_build=True, strict=True)


class Open(Described):
    """An object of OpenAI's, whose further fields are passed on."""

    model_config = ConfigDict(extra="allow")


def extension(description: str, **schema: Any) -> Any:
    """An optional field that OpenAI's API does not have."""
    return Field(None, description=description, json_schema_extra={**_EXTENSION, **schema})
