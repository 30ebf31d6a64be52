"""The headers that answers carry, as callers are told of them."""

from __future__ import annotations

from typing import Any


def _header(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string", **schema}}


HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": _header("The id of this request: the client's own, if it sent a sane one. Logs have it."),
    "ETag": _header("The state of what was answered. Compare it for difference alone."),
    "Preference-Applied": _header("The wait that was granted: `wait=<seconds>`. Only where one was asked for."),
    "Location": _header("The same place with a slash at its end."),
    "Retry-After": _header("After how many seconds another try makes sense.", pattern="^[0-9]+$"),
    "openai-poll-after-ms": _header(
        "Of what has not ended: in how many milliseconds to ask again.", pattern="^[0-9]+$"
    ),
    "x-litellm-model-group": _header("The name of the model that has answered, as LiteLLM tells it."),
}
OURS = frozenset({"ETag", "Preference-Applied", "openai-poll-after-ms", "x-litellm-model-group"})
"""Those that OpenAI's API does not send."""


def headers() -> dict[str, dict[str, Any]]:
    """All of them, extensions marked."""
    marked = {"x-pollux-extension": True}
    return {name: {**header, **(marked if name in OURS else {})} for name, header in HEADERS.items()}


def refer(*names: str) -> dict[str, dict[str, str]]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
