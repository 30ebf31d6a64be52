"""What a config wants left out of requests always: LiteLLM's `additional_drop_params`.

Its names are those of Chat Completions; ours are understood too. A path, such as `tools[*].function.strict`, leads to a
part of the request as it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from server.protocol import jsontext
from server.protocol.defaults import OTHER_NAMES

_STEP = re.compile(r"(?:[^.\[\\]|\\.)+|\[(?:\*|\d+)\]")


def without_fields(given: dict[str, Any], dropped: Collection[str]) -> dict[str, Any]:
    """A request of the Responses API without these fields."""
    left = {name: value for name, value in given.items() if name not in dropped}
    for name in OTHER_NAMES.keys() & dropped:
        field, *key = OTHER_NAMES[name]
        value = left.get(field)
        if not key:
            left.pop(field, None)
        elif isinstance(value, dict):
            left[field] = {inner: part for inner, part in value.items() if inner not in key}
    return left


def without_paths(body: dict[str, Any], dropped: Collection[str]) -> dict[str, Any]:
    """A request as it is sent, without the parts that these paths lead to."""
    paths = [steps for path in dropped if len(steps := _steps(path)) > 1]
    if not paths:
        return body
    left: dict[str, Any] = jsontext.loads(jsontext.dumps(body))  # its parts may belong to the client's request
    for steps in paths:
        _delete(left, steps)
    return left


def _steps(path: str) -> list[str]:
    return [step if step.startswith("[") else step.replace("\\.", ".") for step in _STEP.findall(path)]


def _delete(holder: Any, steps: list[str]) -> None:
    first, *rest = steps
    if first.startswith("["):
        places = range(len(holder)) if isinstance(holder, list) else range(0)
        keys: list[Any] = [place for place in places if first in ("[*]", f"[{place}]")]
    else:
        keys = [first] if isinstance(holder, dict) and first in holder else []
    for key in reversed(keys):
        if rest:
            _delete(holder[key], rest)
        else:
            del holder[key]
