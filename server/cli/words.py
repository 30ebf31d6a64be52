"""Times and numbers in few characters."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))
BARS = "▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """`120ms`, `3.2s`, `47s`, `3m12s`, `2h05m`, `4d03h`; `-` for none."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for (size, unit), (smaller, smaller_unit) in zip(_UNITS, (*_UNITS[1:], (1, "s")), strict=True):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{smaller_unit}"
    return f"{whole}s"


def age(at: float | None) -> str:
    """How long ago that was."""
    return duration(None if at is None else time.time() - at)


def clock(at: float | None) -> str:
    """The time of the day here, to the millisecond."""
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC).astimezone():%H:%M:%S.%f}"[:-3]


def moment(at: float | None) -> str:
    """The day and the time here."""
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def count(number: float | None) -> str:
    """`-`, `12`, `1,234`."""
    return "-" if number is None else f"{number:,.0f}"


def several(number: int, what: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def sparkline(values: list[int]) -> str:
    """A bar for each value, the highest for the largest."""
    top = max(values, default=0)
    return "".join(BARS[min(len(BARS) - 1, value * len(BARS) // (top + 1))] if value else BARS[0] for value in values)
