"""The port through which the parts of a process tell what they are doing, and for whom."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

# ruff: noqa: ARG002 - what does nothing needs no arguments

Value = str | int | float | bool | tuple[str, ...]


class Span:
    """One piece of work, from its beginning to its end. This one belongs to no trace and keeps nothing.

    No call raises anything. None may be given a text that a client or a provider wrote, or a key.
    """

    trace_id = ""
    """In hexadecimal digits, as logs and exemplars name it; empty without a trace."""
    span_id = ""
    sampled = False
    """Whether the trace is kept, so that it can be found by its id."""

    @property
    def exemplar(self) -> dict[str, str] | None:
        """By what a metric can point to this span, if it can be found there."""
        return {"trace_id": self.trace_id, "span_id": self.span_id} if self.sampled else None

    def note(self, **attributes: Value) -> None:
        """Add attributes of Pollux's own: `run_outcome` becomes `pollux.run_outcome`."""

    def answered(self, status: int) -> None:
        """An HTTP answer with this status was given, or came."""

    def failed(self, kind: str) -> None:
        """The work failed. `kind` is one of few words; of several calls the first one counts."""

    def began_to_answer(self, after_s: float) -> None:
        """The first part of a provider's answer came, so many seconds after the call began."""

    def produced(self, response: Mapping[str, Any]) -> None:
        """A provider has made this Response object. Its ids, tokens and end are noted, nothing of its content."""

    def carried_by(self, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """These headers, for a request to somebody else, with this span's context in place of any other one."""
        return headers

    def kept_in(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """These headers, for the store, with this span's context in W3C's form in place of any other one."""
        return headers


NO_SPAN = Span()
_CURRENT: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


def current_span() -> Span:
    """What is being done now, in this task."""
    return _CURRENT.get()


def set_current(span: Span) -> Span:
    """Make this the current span. Returns the one before."""
    before = _CURRENT.get()
    _CURRENT.set(span)
    return before


class Call(NamedTuple):
    """One call to a deployment."""

    operation: str
    """What it does, in the word of the metrics."""
    generates: bool
    """Whether a model works for it."""
    provider: str
    model: str
    """As the deployment names it."""
    base_url: str | None
    deployment: str
    stream: bool


class Tracing:
    """Told of the work of a process. This one makes no spans.

    Each method is a context manager around the work, during which its span is the current one of the task. An error
    that leaves the block is noted by its type, and goes on. Headers may hold the context of a trace to belong to.
    """

    on = False
    """Whether there are spans at all."""

    def answering(self, method: str, route: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        """A request of a client whose key was accepted. `route` is a pattern, never a path."""
        return _NOTHING

    def queueing(self, model: str, owner: str) -> AbstractContextManager[Span]:
        """The creation of a cached response with its job."""
        return _NOTHING

    def running(
        self, response_id: str, model: str, owner: str, attempt: int, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        """One run of a job."""
        return _NOTHING

    def calling(self, call: Call) -> AbstractContextManager[Span]:
        """One call to a deployment; each try is one."""
        return _NOTHING

    def delivering(
        self, event: str, response_id: str, attempt: int, url: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        """One try to deliver a webhook. `event` is the type of what it tells."""
        return _NOTHING

    async def close(self) -> None:
        """Hand over what is left, within a few seconds, and make no more spans."""


_NOTHING = nullcontext(NO_SPAN)
UNTRACED = Tracing()
