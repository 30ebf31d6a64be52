"""What a server is started with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

HIGHEST_PORT = 65_535


class Level(StrEnum):
    """The least important lines that are logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True)
class Served:
    """What is served where."""

    config: Path
    host: str
    port: int
    role: str
    log_level: Level

    def command(self) -> list[str]:
        """The command line that starts one of several processes, without its port."""
        options = {"--config": self.config, "--host": self.host, "--role": self.role, "--log-level": self.log_level}
        # -P keeps Python from importing another `server` that is in the working directory.
        return [sys.executable, "-P", "-m", "server", "serve", *(str(w) for pair in options.items() for w in pair)]
