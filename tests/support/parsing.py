"""What the command line makes of words, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from server.cli.commands import loaded


def parsed(words: Sequence[str]) -> Any:
    """The values of a command's options, by their names. Words that it does not understand raise."""
    name, *rest = words
    with loaded(name).make_context(name, list(rest)) as context:
        return SimpleNamespace(**context.params)
