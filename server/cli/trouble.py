"""What may go wrong in a command, and the exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from server.protocol.lifecycle import Status


class Code(IntEnum):
    """The exit codes of all commands."""

    FINE = 0
    """It did what it was asked for; a response that was waited for is completed."""
    FAILED = 1
    """A response failed, is incomplete or was deleted; or the command itself failed."""
    USAGE = 2
    """It can't be done as it was asked for: wrong options, a wrong key, an unknown id, a request that is refused."""
    CANCELLED = 3
    """A response was cancelled."""
    UNREACHABLE = 4
    """No server answers, or none that can reach its store, or something that is no Pollux."""
    NOT_YET = 5
    """A response has not ended within `--timeout`."""
    INTERRUPTED = 130
    """Ctrl-C. Responses go on."""
    CLOSED = 141
    """Whoever read the output has closed it, as `head` does: what a shell reports of a SIGPIPE."""
    TERMINATED = 143
    """SIGTERM. Responses go on."""


class Trouble(Exception):
    """The command can't go on. The message says why, and in further lines what to do."""

    def __init__(self, message: str, *hints: str, code: Code = Code.FAILED) -> None:
        super().__init__("\n".join((message, *(f"  {hint}" for hint in hints))))
        self.code = code

    @property
    def headline(self) -> str:
        """Why, without what to do."""
        return str(self).partition("\n")[0]


def code_of(status: str) -> Code:
    """The exit code for a response that ended so."""
    if status == Status.COMPLETED:
        return Code.FINE
    return Code.CANCELLED if status == Status.CANCELLED else Code.FAILED


def code_of_all(statuses: Iterable[str]) -> Code:
    """The exit code for several responses: that of a failed one, else of a cancelled one, else 0."""
    codes = {code_of(status) for status in statuses}
    return next((code for code in (Code.FAILED, Code.CANCELLED) if code in codes), Code.FINE)
