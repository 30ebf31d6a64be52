"""How many files a process may have open, and for what it needs them: nearly all are connections.

Where they run out the kernel refuses new connections in both directions, so a crowd of clients would fail the jobs that
were accepted before. So the limit is raised as far as it goes, a part of it is kept for jobs and the store, and clients
get what is left.
"""

from __future__ import annotations

import math
import resource
from contextlib import suppress
from dataclasses import dataclass

from server.sections import ConfigError

MOST_FILES = 1_048_576
"""More than this is never asked for: a hard limit may be "unlimited", which no kernel grants."""
MOST_FILES_OF_MACOS = 10_240
"""Where the hard limit says "unlimited", macOS grants this to everybody."""
OF_THE_PROCESS = 128
"""The store's connections (34, on a cluster for each node), its locks, the event loop, logs, libraries."""
FOR_PROVIDERS = 1 / 4
"""Of what is left for clients: some of their requests are passed on, by a connection to a provider. Waits need none."""
FEWEST_CLIENTS = 64
"""With room for fewer nothing could be served."""


@dataclass(frozen=True)
class OpenFiles:
    """The limit of a process, and the jobs that have the first claim on it."""

    limit: int
    jobs: int

    @property
    def clients(self) -> int:
        """How many clients there is room for beside all that."""
        return int((self.limit - self.jobs - OF_THE_PROCESS) * (1 - FOR_PROVIDERS))

    def __str__(self) -> str:
        return f"{self.clients} clients and {self.jobs} jobs ({self.limit} open files)"

    def check(self) -> None:
        """Refuse what can't fit.

        Raises:
            ConfigError

        """
        if self.clients >= FEWEST_CLIENTS:
            return
        others = OF_THE_PROCESS + math.ceil(FEWEST_CLIENTS / (1 - FOR_PROVIDERS))
        least = f", or set pollux.worker_concurrency to {self.limit - others} or less" if self.limit > others else ""
        raise ConfigError(
            f"a process may open {self.limit} files here, but {self.jobs} jobs at once (pollux.worker_concurrency) and "
            f"{FEWEST_CLIENTS} clients need {self.jobs + others}: raise the hard limit of open files (ulimit -Hn, "
            f"LimitNOFILE= in systemd, --ulimit nofile= in Docker){least}"
        )


def raise_limit() -> int:
    """Raise the limit of open files of this process as far as it goes, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    for wanted in (MOST_FILES, MOST_FILES_OF_MACOS):
        possible = wanted if hard == unlimited else min(wanted, hard)
        if soft == unlimited or soft >= possible:
            break
        with suppress(ValueError, OSError):  # more than the kernel grants, whatever the hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            break
    reached = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_FILES if reached == unlimited else reached
