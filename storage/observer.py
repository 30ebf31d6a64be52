"""The observer: who is told of each exchange with the server, such as the metrics of the process."""

from __future__ import annotations

from typing import Protocol

from storage.errors import StoreError

COMMAND = "command"
"""What exchanges are called that run no script."""


class Observer(Protocol):
    """Told of each exchange when it is over, so it must return at once."""

    def answered(self, command: str, seconds: float, error: StoreError | None) -> None:
        """An exchange is over: the script that was run, how long the server took, and why it failed, if it did."""


class Nobody:
    """An observer that does nothing."""

    def answered(self, command: str, seconds: float, error: StoreError | None) -> None:
        pass


NOBODY = Nobody()
