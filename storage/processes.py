"""What the processes on a store say of themselves, each again and again: so that any of them can tell of all."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from storage.connection import Connections, answered
from storage.keys import PROCESSES, PROCESSES_TTL_MS

SILENT_AFTER_S = 20.0
"""A process that has said nothing for so long is taken for dead; several times as long as it should be silent."""
FORGOTTEN_AFTER_S = 600.0


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What one process said last."""

    name: str
    at: float
    """When, in seconds of Unix's time by its own clock."""
    about: dict[str, Any]


class Processes:
    """What all processes said last."""

    def __init__(self, connections: Connections) -> None:
        self._client: Any = connections.commands

    async def report(self, name: str, about: dict[str, Any]) -> None:
        """Say something of the process of this name; it replaces what was said before.

        Raises:
            StoreError
        """
        async with answered(self._client):
            await self._client.hset(PROCESSES, name, json.dumps({"at": time.time(), "about": about}))
            await self._client.pexpire(PROCESSES, PROCESSES_TTL_MS)

    async def leave(self, name: str) -> None:
        """Take back what was said: the process ends.

        Raises:
            StoreError
        """
        async with answered(self._client):
            await self._client.hdel(PROCESSES, name)

    async def all(self) -> list[ProcessReport]:
        """What those that live have said last, by name. Those that are long dead are forgotten.

        Raises:
            StoreError
        """
        async with answered(self._client):
            rows = await self._client.hgetall(PROCESSES)
        now, found, dead = time.time(), [], []
        for name, text in sorted(rows.items()):
            report = _report(name.decode("utf-8", "replace"), text)
            if report is None or now - report.at > FORGOTTEN_AFTER_S:
                dead.append(name)
            elif now - report.at <= SILENT_AFTER_S:
                found.append(report)
        if dead:
            async with answered(self._client):
                await self._client.hdel(PROCESSES, *dead)
        return found


def _report(name: str, text: bytes) -> ProcessReport | None:
    """Read one of them; None if it was broken by hand."""
    try:
        said = json.loads(text)
        return ProcessReport(name, float(said["at"]), dict(said["about"]))
    except (ValueError, TypeError, KeyError):
        return None
