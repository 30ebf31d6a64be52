"""JSON schemas as Anthropic takes them where an answer must follow one.

It refuses constraints that its grammar can't enforce. They are told in the description instead, as Anthropic's own SDK
does: https://docs.claude.com/en/docs/build-with-claude/structured-outputs
"""

from __future__ import annotations

from typing import Any

from server.protocol import jsontext

Schema = dict[str, Any]

_UNENFORCED = (
    *("maxItems", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("minProperties", "maxProperties", "patternProperties", "propertyNames", "unevaluatedProperties"),
    *("dependentRequired", "dependentSchemas", "if", "then", "else", "not"),
)
_MAPS, _LISTS, _ONE = ("properties", "$defs", "definitions"), ("anyOf", "allOf", "oneOf"), ("items",)


def enforceable(schema: Any) -> Any:
    """The schema without what can't be enforced, and closed, as it must be."""
    if not isinstance(schema, dict):
        return schema
    lost = [name for name in _UNENFORCED if not (schema.get(name) is None or schema[name] is False)]
    if type(least := schema.get("minItems")) is int and least > 1:
        lost.append("minItems")
    made = {name: _inner(name, value) for name, value in schema.items() if name not in (*_UNENFORCED, *lost)}
    if "oneOf" in made:
        made["anyOf"] = [*made.get("anyOf", []), *made.pop("oneOf")]
    if lost:
        told = ", ".join(f"{name}: {jsontext.dumps(schema[name]).decode()}" for name in lost)
        made["description"] = " ".join(filter(None, (schema.get("description"), f"({told})")))
    if "properties" in made or made.get("type") == "object":
        made["additionalProperties"] = False
    return made


def _inner(name: str, value: Any) -> Any:
    if name in _MAPS and isinstance(value, dict):
        return {key: enforceable(inner) for key, inner in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [enforceable(inner) for inner in value]
    return enforceable(value) if name in _ONE else value
