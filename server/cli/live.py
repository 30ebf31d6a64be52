"""The text of one response as it grows: on a terminal with a line below that tells how it goes, else the text alone."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len, chop_cells
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from server.cli.answers import CALLS, call_of, error_of, text_of, tokens_of
from server.cli.client import Client
from server.cli.ids import short
from server.cli.output import in_one_line, remark, safe
from server.cli.terminal import aside, can_draw, console, drawing, status_text
from server.cli.trouble import Trouble
from server.cli.words import duration
from server.protocol.lifecycle import TERMINAL_EVENTS

Json = dict[str, Any]
CHARACTERS_OF_A_TOKEN = 4
"""Only for the rate while it runs: what was really used is known at the end."""
DELTAS = ("response.output_text.delta", "response.refusal.delta")


class Growing:
    """Shows one response to its end. Fed with its states, or with the events of its stream."""

    def __init__(
        self,
        client: Client,
        response_id: str,
        *,
        began: float | None = None,
        ended: float | None = None,
        text: bool = True,
    ) -> None:
        """`began` and `ended`: when, if it was before; without `text` only progress is shown, and no text."""
        self.status = "queued"
        self.last: Json = {}
        self._id, self._model, self._wants_text = response_id, "", text
        self._began, self._ended = time.time() if began is None else began, ended
        self._client = client
        self._shown = ""
        """All text so far."""
        self._line = ""
        """Its last line, which is not whole yet."""
        self._first_at: float | None = None
        self._away: Trouble | None = None
        self._stack = ExitStack()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        out = console() if self._wants_text and sys.stdout.isatty() else aside()
        if can_draw(out):
            self._live = self._stack.enter_context(drawing(out, self._below))
        self._client.on_away = self._on_away
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        line = self._line
        self._line = ""
        self._stack.close()
        if self._wants_text and self._shown:
            if self._on_screen:
                console().print(Text(line), soft_wrap=True)
            elif not self._shown.endswith("\n"):
                sys.stdout.write("\n")
                sys.stdout.flush()
        if kind is None and self.last:
            self._print_end()

    def state(self, response: Json) -> None:
        """The response as it is now."""
        self._take(response)
        text = text_of(response)
        if text.startswith(self._shown):
            self._add(text[len(self._shown) :])
        elif self._wants_text:
            self._begin_anew(text)

    def event(self, event: Json) -> None:
        """The next event of its stream."""
        kind = event.get("type", "")
        if response := event.get("response"):
            self._take(response)
            if kind in TERMINAL_EVENTS and not self._shown:
                self._add(text_of(response))
        elif kind in DELTAS:
            self._add(str(event.get("delta", "")))
        elif kind == "response.content_part.added" and self._shown:
            self._add("\n\n")
        elif kind == "response.output_item.done" and event.get("item", {}).get("type") in CALLS:
            self._add(("\n\n" if self._shown else "") + call_of(event["item"]))

    def _take(self, response: Json) -> None:
        self.last, self.status = response, str(response.get("status"))
        self._id, self._model = response.get("id") or self._id, str(response.get("model") or "")

    def _add(self, text: str) -> None:
        if not text:
            return
        if self._first_at is None:
            self._first_at = time.time()
        self._shown += text
        if not self._wants_text:
            return
        if not self._on_screen:
            sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()
            return
        assert self._live is not None
        *whole, self._line = _lines(self._line + safe(text), self._live.console.width)
        for line in whole:
            self._live.console.print(Text(line), soft_wrap=True)

    def _begin_anew(self, text: str) -> None:
        """A run that died with its process is repeated by another one, and its text begins anew."""
        self._line = ""
        if self._shown and not self._on_screen:
            sys.stdout.write("\n")
        self._remark("(the run began anew)")
        self._shown = ""
        self._add(text)

    @property
    def _on_screen(self) -> bool:
        return self._live is not None and not self._live.console.stderr

    def _on_away(self, trouble: Trouble | None) -> None:
        if self._live is None and trouble is not None and self._away is None:
            remark(f"{trouble.headline}; trying again …")
        self._away = trouble

    def _remark(self, text: str) -> None:
        if self._live is None:
            remark(text)
        else:
            self._live.console.print(Text(text, "dim"))

    def _below(self) -> Group:
        """What stands below the text: its unfinished line, and how it goes."""
        now = time.time()
        told = [duration(now - self._began), self._model]
        if self._first_at is not None and now - self._first_at > 1:
            told.append(f"~{len(self._shown) / CHARACTERS_OF_A_TOKEN / (now - self._first_at):.0f} tokens/s")
        told.append(short(self._id))
        line = Table.grid(padding=(0, 1))
        line.add_row(Spinner("dots"), status_text(self.status), Text(" · ".join(word for word in told if word), "dim"))
        parts = [Text(self._line)] if self._line else []
        away = [Text(f"{self._away.headline}; trying again …", "yellow")] if self._away else []
        return Group(*parts, line, *away)

    def _print_end(self) -> None:
        took = duration((self._ended or time.time()) - self._began)
        told = [status_text(self.status), Text(f" in {took}")]
        if tokens := tokens_of(self.last):
            told.append(Text(f" · {tokens}", "dim"))
        if error := error_of(self.last):
            told.append(Text(f" · {in_one_line(error)}", "red"))
        told.append(Text(f" · {short(self._id)}", "dim"))
        aside().print(Text.assemble(*told), soft_wrap=True)


def _lines(text: str, width: int) -> list[str]:
    """The text in lines that fit, broken at spaces where there are some; the last one is not whole yet."""
    found = []
    for line in text.split("\n"):
        begin = 0
        # A character is at most two cells wide, and one that is none wide may as well go into the next line.
        while cell_len(ahead := line[begin : begin + width]) > width - 1 or len(line) - begin > width:
            fits = chop_cells(ahead, max(2, width - 1))[0]
            cut = fits.rfind(" ", 1) + 1 or len(fits)
            found.append(ahead[:cut].rstrip())
            begin += cut
        found.append(line[begin:])
    return found
