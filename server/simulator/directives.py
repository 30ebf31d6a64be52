"""How a request steers its own answer: `deploy/docs/simulator.md` has the table, this module reads it."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from server.simulator.errors import ApiError, invalid_type

# The value is bounded so that text full of opening brackets costs linear time.
_IN_TEXT = re.compile(r"\[\[\s*([A-Za-z_][A-Za-z0-9_]{0,63})\s*=([^\[\]]{0,512})\]\]")

# An answer is walked once when it is created; at this length that takes some 50 ms, which others wait for.
MAX_WORDS = 50_000
# No answer may hold a connection for longer than this between two events.
MAX_DELAY_S = 3600.0
DEFAULT_RATE = 20.0


@dataclass(frozen=True, slots=True)
class Directives:
    """The directives of one request; the defaults are a plain, immediate, successful answer."""

    words: int | None = None
    delay_ms: float | None = None
    rate: float | None = None
    duration_s: float | None = None
    first_delay_ms: float = 0.0
    tool: str | None = None
    custom_tool: str | None = None
    reasoning: bool = False
    annotations: bool = False
    refusal: bool = False
    incomplete: bool = False
    content_filter: bool = False
    fail: bool = False
    status: int | None = None
    error_code: str | None = None
    retry_after: str | None = None
    fail_times: int | None = None
    fail_key: str | None = None
    cut_after: int | None = None
    end_after: int | None = None
    error_event_after: int | None = None
    error_only: bool = False
    silence_after: int | None = None
    no_sequence: bool = False

    @property
    def length(self) -> int:
        """The number of words asked for; 0 where nothing was."""
        if self.duration_s is not None:
            return round(self.duration_s * (self.rate or DEFAULT_RATE))
        return self.words or 0

    @property
    def gap_s(self) -> float:
        """The time between two events."""
        if self.delay_ms is not None:
            return self.delay_ms / 1000
        rate = self.rate or (DEFAULT_RATE if self.duration_s is not None else None)
        return 1 / rate if rate else 0.0

    @property
    def tools(self) -> list[str]:
        """The functions to call, in their order."""
        return [name for name in map(str.strip, (self.tool or "").split(",")) if name]

    @property
    def half(self) -> bool:
        """Whether only half of the output is to come."""
        return self.incomplete or self.content_filter

    @property
    def breaks(self) -> bool:
        """Whether anything is to go wrong."""
        after = (self.cut_after, self.end_after, self.error_event_after, self.silence_after)
        return self.fail or self.half or any(n is not None for n in (self.status, *after))

    def without_failure(self) -> "Directives":
        """The same answer, gone well."""
        return replace(
            self,
            incomplete=False,
            content_filter=False,
            fail=False,
            status=None,
            cut_after=None,
            end_after=None,
            error_event_after=None,
            error_only=False,
            silence_after=None,
        )


def parse_directives(text: str, metadata: Mapping[str, Any]) -> Directives:
    """Read the directives of a request; the text wins over the metadata. Raises `ApiError` 400."""
    found: dict[str, Any] = {}
    for name in _READERS.keys() & metadata.keys():
        value = metadata[name]
        if not isinstance(value, str):
            raise invalid_type(f"metadata.{name}", "a string", value)
        found[name] = _read(name, value, f"metadata.{name}")
    for name, value in _IN_TEXT.findall(text):
        found[name] = _read(name, value, "input")
    directives = Directives(**found)
    _check_combination(directives)
    if directives.fail_times is not None and not directives.breaks:
        return replace(directives, status=500)
    return directives


def _read(name: str, value: str, param: str) -> Any:
    reader = _READERS.get(name)
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise _refusal(f"Unknown directive '{name}' in the input. Known are: {known}.", param)
    try:
        return reader(value.strip())
    except ValueError as error:
        raise _refusal(f"Invalid value '{value.strip()}' for the directive '{name}': {error}.", param) from None


def _check_combination(d: Directives) -> None:
    if d.duration_s is not None and (d.words is not None or d.delay_ms is not None):
        raise _refusal("The directive 'duration_s' goes with 'rate', not with 'words' or 'delay_ms'.")
    if d.delay_ms is not None and d.rate is not None:
        raise _refusal("The directives 'delay_ms' and 'rate' say the same thing: give one of them.")
    if d.length > MAX_WORDS:
        raise _refusal(f"The directives 'duration_s' and 'rate' ask for more than {MAX_WORDS} words.")
    if d.error_only and d.error_event_after is None:
        raise _refusal("The directive 'error_only' needs 'error_event_after'.")


def _refusal(message: str, param: str = "input") -> ApiError:
    return ApiError(400, message, code="invalid_directive", param=param)


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.isdecimal() or len(value) > 9 or not lowest <= int(value) <= highest:
            raise ValueError(f"expected a whole number from {lowest} to {highest}")
        return int(value)

    return read


def _number(lowest: float, highest: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not lowest <= number <= highest:
            raise ValueError(f"expected a number from {lowest:g} to {highest:g}")
        return number

    return read


def _flag(value: str) -> bool:
    if value.lower() not in {"1", "0", "true", "false"}:
        raise ValueError("expected 1 or 0")
    return value.lower() in {"1", "true"}


def _word(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("expected some text")
    return value


def _seconds(value: str) -> str:
    """Checked as a number, kept as it was written, for a header."""
    _number(0, MAX_DELAY_S)(value)
    return value


_events = _whole(0, 10 * MAX_WORDS)
_milliseconds = _number(0, MAX_DELAY_S * 1000)

_READERS: dict[str, Callable[[str], Any]] = {
    "words": _whole(1, MAX_WORDS),
    "delay_ms": _milliseconds,
    "rate": _number(0.01, 100_000),
    "duration_s": _number(0.01, MAX_DELAY_S),
    "first_delay_ms": _milliseconds,
    "tool": _word,
    "custom_tool": _word,
    "reasoning": _flag,
    "annotations": _flag,
    "refusal": _flag,
    "incomplete": _flag,
    "content_filter": _flag,
    "fail": _flag,
    "status": _whole(400, 599),
    "error_code": _word,
    "retry_after": _seconds,
    "fail_times": _whole(1, 1_000_000),
    "fail_key": _word,
    "cut_after": _events,
    "end_after": _events,
    "error_event_after": _events,
    "error_only": _flag,
    "silence_after": _events,
    "no_sequence": _flag,
}
