"""What a reader makes of one event of a provider."""

from __future__ import annotations

from typing import Any, NamedTuple


class Reading(NamedTuple):
    """An event for the library, or an item that the library does not know and that is complete already."""

    event: dict[str, Any]
    logprobs: list[dict[str, Any]] = []  # noqa: RUF012 - never changed
    """The probabilities of the tokens in its text."""
    is_item: bool = False
    is_extra: bool = False
    """Whether the answer is whole without it, should the library refuse it."""
