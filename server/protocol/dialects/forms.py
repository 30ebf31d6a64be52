"""The forms of a request's parts, checked before it is translated: a provider of the Responses API would check them."""

from __future__ import annotations

from typing import Any

from server.errors import InvalidType

_OBJECTS = ("reasoning", "text")
_LISTS = ("include", "tools")


def check_forms(given: dict[str, Any]) -> None:
    """Check what the mistakes of clients are mostly in.

    Raises:
        InvalidType: names the part

    """
    for name in _OBJECTS:
        _check(name, given.get(name), dict)
    for name in _LISTS:
        _check(name, given.get(name), list)
    for place, tool in enumerate(given.get("tools") or ()):
        _check_typed(f"tools[{place}]", tool)
        _check(f"tools[{place}].name", tool.get("name"), str)
    items = given.get("input")
    for place, item in enumerate(items if isinstance(items, list) else ()):
        where = f"input[{place}]"
        _check(where, item, dict, needed=True)
        _check(f"{where}.type", item.get("type"), str)
        for name in ("content", "output"):
            for number, part in enumerate(item[name] if isinstance(item.get(name), list) else ()):
                _check(f"{where}.{name}[{number}]", part, dict, needed=True)


def _check_typed(where: str, part: Any) -> None:
    _check(where, part, dict, needed=True)
    _check(f"{where}.type", part.get("type"), str, needed=True)


_NAMES: dict[type, str] = {dict: "an object", list: "an array", str: "a string"}


def _check(where: str, value: Any, wanted: type, *, needed: bool = False) -> None:
    if not isinstance(value, wanted) and (needed or value is not None):
        raise InvalidType(where, _NAMES[wanted], value)
