"""The version before this one, as a tree of files that a process can run."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREVIOUS = "d096a0689961d82b47994704f7d9aef8bab8bb3c"
"""The commit of the last release, or of what stands for it as long as there is none. A release sets it to its own."""


def unpack_previous(into: Path) -> Path:
    """Its tree. Skips the test where its commit is neither here nor at the origin of this clone."""
    if not _is_here() and not (_git("fetch", "--quiet", "--depth", "1", "origin", PREVIOUS) and _is_here()):
        pytest.skip(f"the commit {PREVIOUS[:7]} is not in this clone, and can't be fetched")
    archive = subprocess.run(
        ["git", "archive", PREVIOUS, "server", "storage"], cwd=ROOT, capture_output=True, check=True
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(into, filter="data")
    return into


def _is_here() -> bool:
    return _git("cat-file", "-e", f"{PREVIOUS}^{{commit}}")


def _git(*words: str) -> bool:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, timeout=60, check=False)
    return done.returncode == 0
