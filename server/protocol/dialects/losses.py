"""Losses: what a provider can't be told. It is refused, unless the config wants it left out."""

from __future__ import annotations

from server.errors import Untranslatable
from server.protocol.dialects.manners import Manners


class Losses:
    """Decides for one request about each part of it that has no equivalent."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners

    def lose(self, field: str, what: str) -> None:
        """Return if the part may be left out.

        Raises:
            Untranslatable: it may not; the error names field and provider

        """
        root = field.split("[", 1)[0].split(".", 1)[0]
        if not (self._manners.drops or {field, root} & self._manners.dropped):
            raise Untranslatable(self._manners.provider, field, what)
