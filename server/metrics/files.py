"""Values of several processes: each keeps its own in files of one directory, and each can read those of all.

The parent makes the directory and removes it. It numbers the processes, and a new process takes the number of the dead
one whose place it takes: so it goes on with that one's counters, and there are only so many files. What the dead one
told of its levels is dropped.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

log = logging.getLogger("pollux.metrics")

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the directory in it is made by mkdtemp
"""Where it can be written to, files cost no disk. That is so in containers too whose root is read-only."""


@dataclass(frozen=True)
class Shared:
    """Where one of several processes keeps its values."""

    directory: str
    number: int
    """Which of them it is."""


@contextmanager
def new_directory() -> Iterator[str | None]:
    """A directory for the length of a block; None, with a warning, if there is no place to write to."""
    place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    try:
        made = tempfile.TemporaryDirectory(prefix="pollux-metrics-", dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        log.warning("a scrape of /metrics tells of one process only, because no directory can be made: %s", error)
        yield None
        return
    with made as directory:
        log.info("sharing metrics", extra={"directory": directory})
        yield directory


def forget_levels(shared: Shared) -> None:
    """Drop the levels of a process that has ended."""
    mark_process_dead(shared.number, shared.directory)  # type: ignore[no-untyped-call]
    _pid_file(shared).unlink(missing_ok=True)


def leave_pid(shared: Shared) -> None:
    """Tell the other processes which one this is."""
    _pid_file(shared).write_text(str(os.getpid()))


def pids_in(directory: Path) -> list[tuple[int, int]]:
    """The numbers and the process ids of all that share this directory, by number."""
    found: list[tuple[int, int]] = []
    for file in directory.glob(f"*{_PID}"):
        # It may have ended, or may just begin to write its id.
        with suppress(OSError, ValueError):
            found.append((int(file.stem), int(file.read_text())))
    return sorted(found)


_PID = ".pid"


def _pid_file(shared: Shared) -> Path:
    return Path(shared.directory) / f"{shared.number}{_PID}"


def keep_values(shared: Shared | None) -> None:
    """Decide where values are kept that are made from now on: in files, or in memory.

    The library would decide by the environment, in which LiteLLM's users may have one for LiteLLM's own.
    """
    if shared is None:
        values.ValueClass = values.MutexValue
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared.directory
    values.ValueClass = values.MultiProcessValue(lambda: shared.number)  # type: ignore[no-untyped-call]
