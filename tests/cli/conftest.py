"""A place to run commands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.replica import CACHED, Replica
from tests.support.shell import Shell, shell_for


@pytest.fixture
def shell(pollux: Replica, tmp_path: Path) -> Shell:
    """As alice, at one replica in front of the simulator."""
    return shell_for(pollux, tmp_path, POLLUX_MODEL=CACHED)
