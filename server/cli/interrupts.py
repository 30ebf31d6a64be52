"""Ctrl-C and its like while something is watched: the watching ends, and what was watched goes on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from server.cli.trouble import Code, Trouble


def end_tidily() -> None:
    """From now on signals that end the process raise: a terminal gets back its cursor and its screen."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: sys.exit(128 + number))


@contextmanager
def going_on(*response_ids: str) -> Iterator[None]:
    """Turn Ctrl-C, and a server that stays away, into a message that says how to come back."""
    again = f"It goes on. Come back:  pollux watch {' '.join(response_ids)}" if response_ids else ""
    hints = [again] if again else []
    try:
        yield
    except KeyboardInterrupt:
        raise Trouble("interrupted" if hints else "", *hints, code=Code.INTERRUPTED) from None
    except Trouble as trouble:
        if trouble.code is Code.UNREACHABLE and again:
            raise Trouble(str(trouble), again, code=trouble.code) from None
        raise
