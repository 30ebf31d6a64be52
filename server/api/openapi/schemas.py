"""The schemas of all models that the routes name, and of what these hold."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from server.api.models.named import MODELS

PLACE = "#/components/schemas/{model}"


class _Plain(GenerateJsonSchema):
    """Schemas without titles, which only repeat names, and without defaults of null, which only repeat `optional`."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        made = super().default_schema(schema)
        if "default" in made and made["default"] is None:
            del made["default"]
        return made


def schemas() -> dict[str, Any]:
    """All schemas by name."""
    wanted: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in MODELS.values()]
    _, made = models_json_schema(wanted, ref_template=PLACE, schema_generator=_Plain)
    found: dict[str, Any] = made["$defs"]
    for schema in found.values():
        schema.pop("title", None)
    return found
