"""How many files a process may have open, and how they are divided. Nearly all open files are connections.

When no file is left, the kernel refuses new connections in both directions, so too many clients would make jobs fail
that were accepted before. Therefore the limit is raised as far as possible, a part of it is reserved for jobs and the
store, and clients get the rest.
"""

from __future__ import annotations

import math
import resource
from contextlib import suppress
from dataclasses import dataclass

from server.config.sections import ConfigError

MOST_FILES = 1_048_576
"""The highest limit that is asked for: a hard limit may be "unlimited", which no kernel grants."""
MOST_FILES_OF_MACOS = 10_240
"""The limit that macOS grants to every process although its hard limit is "unlimited"."""
OF_THE_PROCESS = 128
"""Reserved for the store's connections (34; on a cluster, for each node) and locks, the event loop, logs, libraries."""
FOR_PROVIDERS = 1 / 4
"""The share of the rest that is reserved for forwarding clients' requests to providers. Waiting clients need none."""
FEWEST_CLIENTS = 64
"""The start is refused if there is room for fewer clients."""


@dataclass(frozen=True)
class OpenFiles:
    """The limit of open files of a process, and the number of jobs that files are reserved for."""

    limit: int
    jobs: int

    @property
    def clients(self) -> int:
        """How many clients may be connected, after all reservations."""
        return int((self.limit - self.jobs - OF_THE_PROCESS) * (1 - FOR_PROVIDERS))

    def __str__(self) -> str:
        return f"{self.clients} clients and {self.jobs} jobs ({self.limit} open files)"

    def check(self) -> None:
        """Refuse to start if the limit is too low for the jobs and the fewest clients.

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
        with suppress(ValueError, OSError):  # the kernel may refuse a value below the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            break
    reached = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_FILES if reached == unlimited else reached
