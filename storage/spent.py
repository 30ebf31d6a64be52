"""What responses use: amounts of one model, as they come and as they are summed up.

All amounts are whole numbers, the cost too, in billionths of the currency. Sums of them are exact and the same in any
order; a sum of fractions would depend on the order, and lose small amounts beside large ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, date, datetime

NANO = 1_000_000_000
"""So many units of `Spent.cost` are one dollar, or whatever the prices are given in."""
MOST = 10**15
"""A larger amount is cut to this: a counter of the store has 64 bits, and a provider may say anything."""


def today() -> date:
    """The day that is counted now. Days are those of UTC."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class Spent:
    """What responses of one model have used. Cached tokens are part of the input, reasoning tokens of the output."""

    model: str
    requests: int = 1
    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    cost: int | None = None
    """None if no price is known."""

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def __add__(self, other: Spent) -> Spent:
        cost = None if self.cost is None and other.cost is None else (self.cost or 0) + (other.cost or 0)
        return Spent(
            self.model,
            self.requests + other.requests,
            self.input + other.input,
            self.cached + other.cached,
            self.output + other.output,
            self.reasoning + other.reasoning,
            cost,
        )


MEASURES = tuple(field.name for field in fields(Spent) if field.name != "model")


def encode_spent(spent: Spent) -> str:
    """As scripts read it: `requests 1 input 12 output 40`, a tab, and the model. Zeros are left out, except a cost."""
    amounts = [
        f"{measure} {min(amount, MOST)}"
        for measure in MEASURES
        if (amount := getattr(spent, measure)) or (measure == "cost" and amount is not None)
    ]
    return f"{' '.join(amounts)}\t{spent.model}"


def decode_day(words: list[bytes]) -> list[Spent]:
    """The amounts of each model in one day's hash. A field that was damaged by hand counts as none."""
    found: dict[str, dict[str, int]] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        measure, _, model = name.decode("utf-8", "replace").partition(" ")
        if measure in MEASURES and value.isdigit():
            found.setdefault(model, {"requests": 0})[measure] = int(value)
    return [Spent(model, **amounts) for model, amounts in found.items()]
