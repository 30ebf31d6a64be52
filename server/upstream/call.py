"""A call: one operation on a deployment, in the words of the Responses API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from server.protocol.litellm_fields import NOTHING, Wishes


class Call(NamedTuple):
    """One operation on a deployment."""

    method: str
    path: tuple[str, ...] = ()
    query: str = ""
    make_request: Callable[[], dict[str, Any]] | None = None
    """Makes the request, anew for each try. It is not kept while the answer arrives, because it may be large."""
    headers: Mapping[str, str] | None = None
    stream: bool = False
    wishes: Wishes = NOTHING
    response_id: str = ""
    """The id that a new response gets where the provider gives none of its own."""

    @property
    def creates(self) -> bool:
        """Whether the call creates a response; all other calls are about an existing one."""
        return self.method == "POST" and not self.path
