"""What commands print: in colour, as tables and with progress on a terminal, and as plain text everywhere else."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from server.cli.output import in_one_line
from server.protocol.lifecycle import Status

COLOURS = {
    Status.QUEUED: "yellow",
    Status.IN_PROGRESS: "blue",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.INCOMPLETE: "magenta",
    Status.CANCELLED: "bright_black",
}
MARKS = {
    Status.QUEUED: "○",
    Status.IN_PROGRESS: "●",
    Status.COMPLETED: "✓",
    Status.FAILED: "✗",
    Status.INCOMPLETE: "◐",
    Status.CANCELLED: "⊘",
}

MAY_BE_CUT = ("MODEL", "OWNER", "METADATA", "DEPLOYMENT", "URL", "NAME", "EVENTS", "LAST FAILURE", "ERROR")
"""The columns that shrink where a terminal is narrow. An id, once cut, is of no use."""
GAP, LEAST = 2, 8
"""Between columns; and how wide one that is cut remains."""
WIDE = 160
"""How wide a picture is that no terminal shows."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`, for all ways to write."""
        raise  # noqa: PLE0704  # it is called where the error is handled


def console() -> Console:
    """Standard output."""
    width = None if sys.stdout.isatty() else WIDE
    return _Output(highlight=False, markup=False, emoji=False, width=width)


def aside() -> Console:
    """Standard error: for progress and for remarks."""
    return _Output(stderr=True, highlight=False, markup=False, emoji=False)


def can_draw(out: Console) -> bool:
    """Whether a picture can be drawn again and again: on a terminal that can, and on which nobody else writes.

    Beside standard error that may be what we write to standard output, or whoever reads it from a pipe.
    """
    if not out.is_terminal or out.is_dumb_terminal:
        return False
    return not (out.stderr and (sys.stdout.isatty() or stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)))


@contextmanager
def drawing(
    out: Console, picture: Callable[[], RenderableType], *, stays: bool = False, screen: bool = False
) -> Iterator[Live]:
    """A picture that is drawn again and again; at the end it is gone, unless it stays. What is said stands above it.

    On standard error it leaves standard output alone; rich would write that there too.
    """
    live = Live(
        console=out,
        get_renderable=picture,
        refresh_per_second=4 if stays or screen else 10,
        transient=not stays,
        screen=screen,
        redirect_stdout=not out.stderr,
        redirect_stderr=not out.stderr,
    )
    with live, _giving_way(live, screen=screen):
        yield live


@contextmanager
def _giving_way(live: Live, *, screen: bool) -> Iterator[None]:
    """Give back the screen and the cursor as long as Ctrl-Z stops us."""
    out = live.console

    def stop(_number: int, _frame: FrameType | None) -> None:
        if screen:
            out.set_alt_screen(False)
        out.show_cursor()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, stop)
        if screen:
            out.set_alt_screen()
        else:
            # The next picture is drawn over the last one, and by now the shell has written there.
            out.file.write("\n" * (len(out.render_lines(live.get_renderable())) - 1))
        out.show_cursor(show=False)
        live.refresh()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def status_text(status: str) -> Text:
    """A status with its mark, in its colour."""
    if status not in COLOURS:
        return Text(in_one_line(status))
    known = Status(status)
    return Text(f"{MARKS[known]} {status}", COLOURS[known])


def tabled(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = (), width: int = WIDE
) -> Table:
    """A table without lines, for a terminal of this width. Columns in `right` are numbers."""
    lines = [[cell if isinstance(cell, Text) else Text(in_one_line(cell)) for cell in row] for row in rows]
    widths = [max([len(name), *(line[place].cell_len for line in lines)]) for place, name in enumerate(columns)]
    fitting = _fitted(columns, widths, width)
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for place, name in enumerate(columns):
        if fitting[place]:
            side: Literal["left", "right"] = "right" if name in right else "left"
            made.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", width=fitting[place])
    for line in lines:
        made.add_row(*(cell for place, cell in enumerate(line) if fitting[place]))
    return made


def _fitted(columns: Sequence[str], widths: Sequence[int], width: int) -> list[int]:
    """The widths at which all columns fit: first some are cut, the last one most; then they are left out, then others.

    The first two are never left out: without an id and a status a line says nothing.
    """
    fitted = list(widths)
    for least in (LEAST, 0):
        for place in reversed(range(len(columns))):
            excess = sum(one + GAP for one in fitted if one) - GAP - width
            if excess > 0 and columns[place] in MAY_BE_CUT:
                fitted[place] = max(min(least, fitted[place]), fitted[place] - excess) if least else 0
    for place in reversed(range(2, len(columns))):
        if sum(one + GAP for one in fitted if one) - GAP > width:
            fitted[place] = 0
    return fitted


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()) -> None:
    """A table on a terminal; elsewhere the same columns, never cut, for `grep` and `awk`."""
    out = console()
    if out.is_terminal:
        out.print(tabled(columns, rows, right, out.width))
        return
    lines = [list(columns), *([_plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _plain(cell: str | Text) -> str:
    """A cell in one line, and never empty, so that columns can be counted. A mark is for the eye."""
    text = " ".join(str(cell).split())
    return text.partition(" ")[2] if text[:1] in MARKS.values() else text or "-"
