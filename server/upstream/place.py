"""Places: where a deployment's requests go, in which form, and how they are let in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from server.protocol.dialects.manners import Manners
from server.upstream.credential import STATIC, Credential

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Framing(StrEnum):
    """How the events of a stream are told apart."""

    SSE = "text/event-stream"
    AMAZON = "application/vnd.amazon.eventstream"
    """Binary messages with checksums, each with an event of the model's in base64."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How a response is made: the path below the deployment's base URL, and what is peculiar to the body.

    `{model}` stands for the upstream's name of the model.
    """

    path: str
    stream_path: str | None = None
    """The path of a request with `stream`, if it is another one."""
    model: str | None = "{model}"
    """How the body names the model; None: it does not."""
    says_stream: bool = True
    """Whether the body says that the answer is to be streamed; else the path alone does."""
    adds: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """Fields that each body has."""
    betas_in_body: bool = False
    """Whether trials of Anthropic's are named in the body, and not in a header."""
    framing: Framing = Framing.SSE
    counting_path: str | None = None
    """Where Messages count the tokens of an input; None: nowhere."""

    def path_for(self, model: str, *, stream: bool) -> str:
        path = self.stream_path if stream and self.stream_path is not None else self.path
        # Google's names have an @, which a path may hold.
        return path.replace("{model}", quote(model, safe="@"))

    def worded(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body in the form that is wanted here."""
        made = {**self.adds, **body}
        if self.model is None:
            made.pop("model", None)
        elif made.get("model") is not None:
            made["model"] = self.model.replace("{model}", str(made["model"]))
        if not self.says_stream:
            made.pop("stream", None)
        return made


RESPONSES = Operation("/responses")


@dataclass(frozen=True)
class Reach:
    """Where requests go, and with which headers."""

    manners: Manners
    """The dialect that is spoken there, and how far the provider goes along with it."""
    base_url: str | None
    """What precedes the operation; None: nobody knows."""
    query: str = ""
    """The query of each URL, without the question mark."""
    operation: Operation = RESPONSES
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    credential: Credential = STATIC
    """What is shown beside the headers."""
    flaw: str | None = None
    """Why it can't be reached, and what to write in the config."""
    key_header: str = ""
    """The header in which the provider wants a client's own key; empty if it is not to get that."""
    model: str | None = None
    """What the provider calls the model, if that is not what the config says behind the prefix."""
