"""Leaks to be found: Python that replicas run first, so that each of their answers leaves something behind.

They prove that the soak sees what it is there to see.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.soak.samples import DESCRIPTORS, MEMORY, TASKS

LEAKS = {
    MEMORY: "kept.append(os.urandom(8192))",
    DESCRIPTORS: "os.dup(0)",
    TASKS: "kept.append(asyncio.create_task(asyncio.Event().wait()))",
}
"""By what grows."""

_LEAKING = """
import asyncio, os
from server.metrics import Counting

kept = []
answered = Counting.request_answered

def leak(self, *arguments):
    {leaks}
    answered(self, *arguments)

Counting.request_answered = leak
"""


def leaking(leaks: Iterable[str]) -> str:
    """The program of these leaks."""
    return _LEAKING.format(leaks="; ".join(LEAKS[what] for what in leaks) or "pass")
