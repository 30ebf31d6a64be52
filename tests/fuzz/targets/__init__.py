"""The targets of the fuzzers, one a module: `fuzz(data)` returns if all is well, and raises if not."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module

Target = Callable[[bytes], None]

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def target(name: str) -> Target:
    """The target of this name, imported only now: a fuzzer must be ready before it is."""
    made: Target = import_module(f"{__name__}.{name}").fuzz
    return made
