"""How a job ends that no provider ended."""

from __future__ import annotations

from server.errors import (
    PolluxError,
    PreviousNotFinished,
    PreviousNotFound,
    Untranslatable,
    UpstreamRefusal,
    UpstreamTimeout,
)
from server.protocol.intake import Ending, failure


def failure_of(error: PolluxError) -> Ending:
    """The failure, and its `error`, of a response whose upstream refused or could not be reached."""
    if isinstance(error, UpstreamTimeout):
        code = "timeout"
    elif isinstance(error, Untranslatable | PreviousNotFound | PreviousNotFinished):
        code = "invalid_prompt"
    elif not isinstance(error, UpstreamRefusal):
        code = "server_error"
    elif error.code:
        code = error.code
    elif error.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if error.status < 500 else "server_error"
    return failure(code, error.message)
