"""All models by their names, which the table of routes and the description use."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from pydantic import BaseModel, Field, RootModel

from server.api.models import bodies, errors, events, items, request, response, watching, webhooks
from server.api.models.base import Open


class Anything(RootModel[Any]):
    """Any JSON."""

    root: Any = Field(description="Whatever it is.")


class AnyObject(Open):
    """Any JSON object."""


def _models_of(module: ModuleType) -> dict[str, type[BaseModel]]:
    own = {name: found for name, found in vars(module).items() if getattr(found, "__module__", "") == module.__name__}
    return {name: found for name, found in own.items() if isinstance(found, type) and issubclass(found, BaseModel)}


def _is_ours(name: str) -> bool:
    """Whether it is no base of others, and none that pydantic has put there for a type with parameters."""
    return name.isidentifier() and not name.startswith(("_", "About"))


MODELS: dict[str, type[BaseModel]] = {"Anything": Anything, "AnyObject": AnyObject}
for _module in (bodies, errors, events, items, request, response, watching, webhooks):
    MODELS |= {name: found for name, found in _models_of(_module).items() if _is_ours(name)}
