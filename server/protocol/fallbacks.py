"""Fallbacks: which models a request goes on with after one that has failed. Pure, and LiteLLM's rule (1.110:
`router_utils/fallback_event_handlers.py`).

Each model that fails has a list of models to go on with, and each of those, if it fails too, its own: the way is a tree
that is walked in depth. No model is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from server.protocol.causes import Cause

EVERY = "*"
"""In a table, the list of all models that have none of their own."""
DEEPEST = 5
"""LiteLLM's `max_fallbacks`, where nobody sets another."""
Table = Mapping[str, tuple[str, ...]]
"""For a model, those to go on with."""


def _nobody(_model: str) -> str | None:
    return None


@dataclass(frozen=True)
class Fallbacks:
    """The lists that hold for a request."""

    general: Table = field(default_factory=dict)
    window: Table | None = None
    """For requests that are too long, instead of the general ones; None: those."""
    policy: Table | None = None
    """For requests that a provider's rules forbid, likewise."""
    own: tuple[str, ...] | None = None
    """What the request itself names: it holds for every model and cause."""
    deepest: int = DEEPEST
    alike: Callable[[str], str | None] = _nobody
    """The other name under which a general list may stand: the model's with the prefix of its provider, or without."""

    def after(self, model: str, cause: Cause) -> tuple[str, ...]:
        """The models to go on with after this one has failed."""
        if self.own is not None:
            return self.own
        special = {Cause.WINDOW: self.window, Cause.POLICY: self.policy}.get(cause)
        if special is not None:
            return special.get(model, ())
        if not self.general:
            return ()
        for name in (model, self.alike(model), EVERY):
            if name is not None and name in self.general:
                return self.general[name]
        return ()

    def reachable(self, model: str) -> list[str]:
        """All models that a request for this one may end at, nearest first, without itself."""
        found = [model]
        for name in found:  # grows as it is walked
            found += dict.fromkeys(
                target for cause in Cause for target in self.after(name, cause) if target not in found
            )
        return found[1:]


@dataclass(slots=True)
class _Level:
    """The list that is being gone through after one model has failed."""

    left: list[str]
    depth: int


class Walk:
    """The way of one request from model to model."""

    def __init__(self, fallbacks: Fallbacks, model: str, may_use: Callable[[str], bool] = bool) -> None:
        self.fallbacks = fallbacks
        self.model = model
        """The model that is asked now."""
        self.depth = 0
        """How many steps lead to it, counted as LiteLLM does: those beside it in its list, too."""
        self._may_use = may_use
        self._asked = {model}
        self._levels: list[_Level] = []

    def after(self, cause: Cause) -> str | None:
        """The model to go on with after the present one has failed; None if there is none."""
        self._levels.append(_Level(list(self._listed(cause)), self.depth))
        while self._levels:
            level = self._levels[-1]
            while level.left:
                name = level.left.pop(0)
                if self._is_open(name):
                    self._asked.add(name)
                    level.depth += 1
                    self.model, self.depth = name, level.depth
                    return name
            self._levels.pop()
        return None

    def ahead(self, cause: Cause = Cause.OTHER) -> list[str]:
        """The models that would come next, the first one first, if the present one failed."""
        found = [*self._listed(cause), *(name for level in reversed(self._levels) for name in level.left)]
        return [name for name in dict.fromkeys(found) if self._is_open(name)]

    def reachable(self) -> Iterator[str]:
        """All models that the request may end at, without the present one."""
        return filter(self._may_use, self.fallbacks.reachable(self.model))

    def _listed(self, cause: Cause) -> Sequence[str]:
        return self.fallbacks.after(self.model, cause) if self.depth < self.fallbacks.deepest else ()

    def _is_open(self, name: str) -> bool:
        return name not in self._asked and self._may_use(name)
