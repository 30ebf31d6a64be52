"""Fields of what a provider sent. One of another type than expected counts as absent."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def object_in(holder: Object, name: str) -> Object:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def objects_in(holder: Object, name: str) -> list[Object]:
    """The objects in a list; whatever else is in it is passed over."""
    return [item for item in list_in(holder, name) if isinstance(item, dict)]


def list_in(holder: Object, name: str) -> list[Any]:
    value = holder.get(name)
    return value if isinstance(value, list) else []


def text_in(holder: Object, name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def mark_in(holder: Object, name: str) -> str | None:
    """An id or an index, which some providers write as a number and some as a text. An empty one is none."""
    value = holder.get(name)
    return str(value) if isinstance(value, int) else text_in(holder, name) or None
