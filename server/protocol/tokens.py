"""The tokens that a response has used, as its provider tells them, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """Cached tokens are part of the input, and reasoning tokens part of the output."""

    input: int
    cached: int
    output: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a token costs, in billionths of the currency: 1.25 dollars for a million tokens are 1250 for one."""

    input: float
    cached_input: float
    output: float

    def of(self, tokens: Tokens) -> int:
        """What so many tokens cost, rounded to whole billionths."""
        uncached = max(0, tokens.input - tokens.cached)
        return round(uncached * self.input + tokens.cached * self.cached_input + tokens.output * self.output)


def tokens_in(response: dict[str, Any]) -> Tokens | None:
    """The tokens in a Response object; None if it tells none."""
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    return Tokens(
        _count(usage.get("input_tokens")),
        _count(_detail(usage, "input_tokens_details", "cached_tokens")),
        _count(usage.get("output_tokens")),
        _count(_detail(usage, "output_tokens_details", "reasoning_tokens")),
    )


def _detail(usage: dict[str, Any], name: str, part: str) -> Any:
    details = usage.get(name)
    return details.get(part) if isinstance(details, dict) else None


MOST = 10**12
"""No response has as many tokens: a larger number is a provider's mistake, and would spoil all sums."""


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= MOST else 0
