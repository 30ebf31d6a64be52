"""Ctrl-C while something is watched: the watching ends, and what was watched goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.cli.trouble import Code, Trouble


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
