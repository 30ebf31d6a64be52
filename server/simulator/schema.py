"""JSON that fits a simple JSON schema, and says what was said."""

from collections.abc import Callable
from typing import Any

from server.simulator.errors import ApiError
from server.simulator.turn import Json

# A schema that refers to itself may ask for more values than anybody has, and deeper ones than can be walked.
_MAX_VALUES = 1000
_MAX_DEPTH = 20
# Only one string says all that was said; each of a thousand saying it would make a very long answer.
_MAX_FURTHER_CHARS = 1000


def fit(schema: Json, text: str) -> Any:
    """A value that fits: its first string is the text, further ones its beginning. Raises `ApiError` 400.

    Understood are types, properties, items, enum, const, anyOf, oneOf and local references; of the limits only
    `minimum` and `maximum`.
    """
    return _Fitting(schema, text).value(schema, 0)


class _Fitting:
    def __init__(self, root: Json, text: str) -> None:
        self._root = root
        self._text = text
        self._count = 0

    def value(self, schema: Any, depth: int) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ApiError(400, "The simulator finds no answer that fits this schema: it is too large or too deep.")
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if isinstance(choices := schema.get("enum"), list) and choices:
            return choices[0]
        makers: dict[str, Callable[[Json, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
        }
        kind = _type_of(schema)
        if kind in makers:
            return makers[kind](schema, depth)
        return _within(schema, len(self._text)) if kind in {"integer", "number"} else {"boolean": True}.get(kind)

    def _object(self, schema: Json, depth: int) -> Json:
        properties = schema.get("properties")
        each = properties.items() if isinstance(properties, dict) else ()
        return {name: self.value(property_schema, depth + 1) for name, property_schema in each}

    def _array(self, schema: Json, depth: int) -> list[Any]:
        # An item may be an array of the same kind again.
        ends = depth > _MAX_DEPTH // 2 and not schema.get("minItems")
        return [] if ends else [self.value(schema.get("items") or {}, depth + 1)]

    def _string(self, *_: object) -> str:
        text, self._text = self._text, self._text[:_MAX_FURTHER_CHARS]
        return text

    def _resolved(self, schema: Any) -> Json:
        """The schema behind references and choices; what can't be followed fits anything."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, dict):
                return {}
            choices = schema.get("anyOf") or schema.get("oneOf")
            if isinstance(reference := schema.get("$ref"), str):
                schema = self._referred(reference)
            elif isinstance(choices, list):
                schema = choices[0]
            else:
                return schema
        return {}

    def _referred(self, reference: str) -> Any:
        place: Any = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            if name:
                place = place.get(name) if isinstance(place, dict) else None
        return place


def _type_of(schema: Json) -> str:
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    return str(kind[0] if isinstance(kind, list) and kind else kind)


def _within(schema: Json, number: int) -> float:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if isinstance(lowest, int | float) and number < lowest:
        return lowest
    return highest if isinstance(highest, int | float) and number > highest else number
