"""A call: one operation on a deployment, in the words of the Responses API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from server.keyring import ClientKey
from server.protocol.litellm_fields import NOTHING, Wishes

INPUT_TOKENS, COMPACT = "input_tokens", "compact"
"""The operations on an input. They make no response, and they stand where the id of one would."""


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
    key: ClientKey | None = None
    """The client's own key, for deployments that forward it."""
    response_id: str = ""
    """The id that a new response gets where the provider gives none of its own."""
    model: str = ""
    """The model that is asked, as the deployment names it; empty: the deployment's only one."""

    @property
    def creates(self) -> bool:
        """Whether the call creates a response; all other calls are about an existing one."""
        return self.method == "POST" and not self.path

    @property
    def spends(self) -> bool:
        """Whether the model works for it, so that its answer tells of tokens that have to be paid for."""
        return self.creates or self.operation == COMPACT

    @property
    def operation(self) -> str:
        """The operation on an input, if the call is one; else empty."""
        return self.path[0] if self.method == "POST" and self.path in ((INPUT_TOKENS,), (COMPACT,)) else ""
