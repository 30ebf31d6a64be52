"""Libraries that only some deployments need. They are installed by an extra, and imported when they are first used."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec


@lru_cache(64)
def lacks(*modules: str) -> bool:
    """Whether one of these modules is not installed. They are not imported, only the packages that they lie in."""
    try:
        return any(find_spec(module) is None for module in modules)
    except ModuleNotFoundError:
        return True
