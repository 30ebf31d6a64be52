"""Deadlines for slow clients: for the head of a request, its body, and for taking an answer.

One sweep over the connections of the process keeps them all, so that no request pays for a timer. It compares what each
connection has received and sent since the last look. A wait or a stream owes nothing meanwhile, and may last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.api.connection import Connection, Owed
from server.errors import RequestTimeout

log = logging.getLogger("pollux.api")

LOOK_EVERY_S = 1.0
SLOWEST_BYTES_PER_S = 500
"""A body or an answer that advances slower than this, over a whole deadline, is given up. Any telephone line is
faster."""
ANSWER_WITHIN_S = 30.0
"""A client takes so many seconds' worth of its answer within this time, or is disconnected. As for streams, see
`outflow.py`."""


@dataclass(frozen=True)
class Deadlines:
    """How long a client may take, in seconds."""

    head_s: float = 30.0
    """From the first byte of a request to the end of its headers; of a new connection from its beginning."""
    body_s: float = 30.0
    """The time over which the rate of a body is measured."""

    def of(self, owed: Owed) -> float:
        return {Owed.HEAD: self.head_s, Owed.BODY: self.body_s, Owed.READING: ANSWER_WITHIN_S}[owed]


@dataclass(slots=True)
class _Window:
    """What a connection owes since when, and how far it was then."""

    owed: Owed
    number: int
    """Which request of the connection it is about."""
    since: float
    done_bytes: int
    told: bool = False


class Sweep:
    """Looks at all connections again and again."""

    def __init__(self, connections: Callable[[], Iterable[Connection]], deadlines: Deadlines) -> None:
        self._connections = connections
        self._deadlines = deadlines
        self._windows: dict[Connection, _Window] = {}

    def look(self, now: float) -> None:
        """End what has lasted too long. `now`: by the clock of the event loop."""
        looked = ((connection, self._looked_at(connection, now)) for connection in self._connections())
        self._windows = {connection: window for connection, window in looked if window is not None}

    def _looked_at(self, connection: Connection, now: float) -> _Window | None:
        """What it owes from here on, and since when."""
        owed = connection.owes()
        if owed is None:
            return None
        number, done = connection.requests, connection.done_bytes(owed)
        window = self._windows.get(connection)
        if window is None or (window.owed, window.number) != (owed, number):
            return _Window(owed, number, now, done)
        if owed is Owed.HEAD and number and done == window.done_bytes:
            window.since = now  # it is idle: nothing of another request has come
            return window
        limit_s = self._deadlines.of(owed)
        if now - window.since < limit_s:
            return window
        if owed is not Owed.HEAD and done - window.done_bytes >= SLOWEST_BYTES_PER_S * limit_s:
            return _Window(owed, number, now, done)
        self._end(connection, window)
        return window

    def _end(self, connection: Connection, window: _Window) -> None:
        log.debug("a client was too slow: %s", window.owed)
        if window.told or window.owed is Owed.READING:
            connection.abort()  # even its error was not taken, or its handler does not read the body
        elif window.owed is Owed.HEAD and not connection.received_bytes:
            connection.force_close()  # there is no request that could be answered
        else:
            window.told = True
            connection.time_out(RequestTimeout(window.owed))
