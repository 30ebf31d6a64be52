"""A terminal that is filmed: what stands on each of its rows, in which colours, from when until when."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyte

LONGEST_PAUSE_S = 0.8
"""What takes longer without a change is shown as if it had taken so long."""
TYPED_S = 0.035
"""How long it takes to type a character."""


class Piece(NamedTuple):
    """Characters of one row that look alike. A colour is a name of pyte's, or six hexadecimal digits."""

    column: int
    text: str
    colour: str
    bold: bool


Row = tuple[Piece, ...]
BAR = -1


@dataclass(frozen=True)
class Shot:
    """One row, unchanged from one time to another, in seconds from the beginning of the film."""

    row: int
    """`BAR` is the bar above the screen, which tells what happens elsewhere."""
    begin_s: float
    end_s: float
    shown: Row


class Terminal:
    """Runs commands as if they were typed, and films it."""

    def __init__(self, columns: int, rows: int, environ: Mapping[str, str]) -> None:
        self.columns, self.rows = columns, rows
        self._environ = environ
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._now_s = 0.0
        self._looked_at = time.monotonic()
        self._standing: dict[int, tuple[float, Row]] = dict.fromkeys((BAR, *range(rows)), (0.0, ()))
        self._shots: list[Shot] = []

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    async def type(self, line: str) -> None:
        """Type a line at a prompt."""
        self._feed(b"\033[1;32m$\033[0m ")
        for character in line:
            self._now_s += TYPED_S
            self._looked_at = time.monotonic()
            self._feed(character.encode())
        self._pass(0.4)
        self._feed(b"\r\n")

    def tell(self, what: str) -> None:
        """Write into the bar what happens elsewhere."""
        self._put(BAR, (Piece(0, what, "black", bold=False),))

    async def run(self, command: Sequence[str]) -> int:
        """Run a command on this terminal until it ends, and return its exit code."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=self._environ
        )
        os.close(theirs)
        self._looked_at = time.monotonic()
        try:
            while read := await asyncio.to_thread(_read, ours):
                self._feed(read)
            return await process.wait()
        finally:
            os.close(ours)
            if process.returncode is None:
                process.kill()
                await process.wait()

    def film(self, still_s: float) -> list[Shot]:
        """All shots so far. The last picture stands still for so long."""
        end_s = self._now_s + still_s
        standing = [Shot(row, since_s, end_s, shown) for row, (since_s, shown) in self._standing.items()]
        return [shot for shot in (*self._shots, *standing) if shot.shown and shot.end_s > shot.begin_s]

    def _pass(self, seconds: float) -> None:
        self._now_s += seconds
        self._looked_at = time.monotonic()

    def _feed(self, output: bytes) -> None:
        now = time.monotonic()
        self._now_s += min(now - self._looked_at, LONGEST_PAUSE_S)
        self._looked_at = now
        self._stream.feed(output)
        for number in range(self.rows):
            self._put(number, self._row(number))

    def _put(self, row: int, shown: Row) -> None:
        since_s, before = self._standing[row]
        if shown != before:
            self._shots.append(Shot(row, since_s, self._now_s, before))
            self._standing[row] = (self._now_s, shown)

    def _row(self, number: int) -> Row:
        pieces: list[Piece] = []
        line = self._screen.buffer[number]
        for column in range(self.columns):
            character = line[column]
            if character.data in ("", " "):
                continue
            piece = Piece(column, character.data, character.fg, character.bold)
            last = pieces[-1] if pieces else None
            if last and last[2:] == piece[2:] and column - (last.column + len(last.text)) <= 1:
                gap = " " * (column - last.column - len(last.text))
                pieces[-1] = last._replace(text=last.text + gap + piece.text)
            else:
                pieces.append(piece)
        return tuple(pieces)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""  # so Linux tells that the other end is closed
