"""What schemathesis loads: the failures that are none."""

from __future__ import annotations

from typing import Any

import schemathesis

PASSED_ON = frozenset({"createResponse", "compactInput", "countInputTokens"})
"""What Pollux does not read of their bodies it passes on as it is, and the provider judges it. The simulated one takes
anything. What Pollux reads of them is in `tests/api/test_openapi.py`."""

MODEL = "gpt-5.2"


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore]
def map_body(_context: Any, body: Any) -> Any:
    """Ask for a model that there is, wherever one is asked for."""
    if isinstance(body, dict) and isinstance(body.get("model"), str) and body["model"]:
        return {**body, "model": MODEL}
    return body


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore]
def filter_failure(_context: Any, failure: Any, case: Any, _response: Any) -> bool:
    """Whether a failure is one."""
    of_the_body = case.meta is not None and _location(case) == "body"
    operation = case.operation.definition.raw.get("operationId")
    return not (failure.code == "ST201" and operation in PASSED_ON and of_the_body)


def _location(case: Any) -> str | None:
    location = case.meta.phase.data.parameter_location
    return None if location is None else str(location.value)
