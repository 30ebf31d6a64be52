"""Completion windows: within what time a client wants a background response to be completed.

OpenAI's field, as its SDK 3.x has it: `background_options: {"completion_window": "soonest" | "2h" | "8h"}`. It is for
Pollux's own queue, where it decides which of an owner's jobs begins first; an idle worker takes any of them at once.
"""

from __future__ import annotations

from typing import Any

from server.errors import InvalidType, InvalidValue

BACKGROUND_OPTIONS = "background_options"

_HOUR_S = 3600.0
_SOONEST, _LONGEST = "soonest", "8h"
_WINDOWS_S = {_SOONEST: 0.0, "2h": 2 * _HOUR_S, _LONGEST: 8 * _HOUR_S}


def window_s(body: dict[str, Any]) -> float:
    """The completion window of a request in seconds; 0: as soon as possible.

    `service_tier: "flex"`, OpenAI's processing for what may wait, stands for the longest window where none is given.

    Raises:
        InvalidType, InvalidValue

    """
    name = _given(body)
    if name is None:
        name = _LONGEST if body.get("service_tier") == "flex" else _SOONEST
    return _WINDOWS_S[name]


def begin_within_s(window: float, longest_run_s: float) -> float:
    """How long a job may wait, so that its window leaves a run the time that it may take.

    It is at least half of the window, so that even where runs may take long, a job with a window lets others go first.
    """
    return max(window / 2, window - longest_run_s)


def _given(body: dict[str, Any]) -> str | None:
    options = body.get(BACKGROUND_OPTIONS)
    if options is None:
        return None
    if not isinstance(options, dict):
        raise InvalidType(BACKGROUND_OPTIONS, "an object", options)
    name, param = options.get("completion_window"), f"{BACKGROUND_OPTIONS}.completion_window"
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidType(param, "a string", name)
    if name not in _WINDOWS_S:
        allowed = ", ".join(f"'{known}'" for known in _WINDOWS_S)
        raise InvalidValue(f"Invalid value for '{param}': expected one of {allowed}.", param=param)
    return name
