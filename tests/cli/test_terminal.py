"""How little room is used well: durations, columns, lines."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from server.cli.ids import short
from server.cli.live import _lines
from server.cli.terminal import GAP, _fitted
from server.cli.watch import _picture
from server.cli.words import duration, sparkline


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((None, "-"), (-1, "0ms"), (0.0123, "12ms"), (0.9999, "1.0s"), (3.24, "3.2s"), (9.96, "10s"), (59.4, "59s")),
        *((59.9, "1m00s"), (192, "3m12s"), (3599.9, "1h00m"), (7500, "2h05m"), (90_000, "1d01h"), (356_000, "4d02h")),
    ],
)
def test_durations_are_short(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_lines_break_at_words_and_lose_no_character_but_spaces() -> None:
    text = "one two three four\n\nfive " + "x" * 25 + " six"
    *whole, rest = _lines(text, 12)
    assert whole == ["one two", "three four", "", "five", "x" * 11, "x" * 11]
    assert rest == "xxx six"
    assert "".join([*whole, rest]).replace(" ", "") == text.replace(" ", "").replace("\n", "")


def test_wide_characters_take_two_cells() -> None:
    assert _lines("ab 日本語日本語 cd", 8) == ["ab", "日本語", "日本語", "cd"]
    assert _lines("語" * 3, 2) == ["語", "語", "語", ""], "no narrower than one character"
    assert _lines("e\u0301" * 6, 5) == ["e\u0301" * 2 + "e", "\u0301" + "e\u0301" * 2, "e\u0301"]


def test_a_screen_with_too_few_lines_shows_those_that_have_not_ended() -> None:
    statuses = ["completed"] * 20 + ["in_progress"] * 4
    jobs = [{"id": f"resp_{n}", "status": status, "created_at": 1} for n, status in enumerate(statuses)]

    def shown(height: int | None) -> list[str]:
        out = Console(file=StringIO(), width=80)
        out.print(_picture(jobs, ["away"], 80, height))
        return out.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]

    lines = shown(10)
    assert len(lines) < 10
    assert [line.split()[0] for line in lines[1:-2]] == ["resp_20", "resp_21", "resp_22", "resp_23", "resp_0", "resp_1"]
    assert lines[-2:] == ["4 of 24 unfinished, 18 not shown", "away"]
    assert len(shown(None)) == 27


def test_columns_are_cut_before_they_are_left_out_and_an_id_never_is() -> None:
    columns, widths = ("ID", "MODEL", "AGE", "METADATA"), [8, 20, 5, 30]
    whole = sum(widths) + 3 * GAP
    assert _fitted(columns, widths, whole) == widths
    assert _fitted(columns, widths, whole - 10) == [8, 20, 5, 20]
    assert _fitted(columns, widths, whole - 24) == [8, 18, 5, 8]
    assert _fitted(columns, widths, 30) == [8, 8, 5, 0]
    assert _fitted(columns, widths, 10) == [8, 0, 0, 0]
    assert _fitted(("ID", "STATUS", "AGE", "TOKENS"), [8, 13, 5, 6], 30) == [8, 13, 5, 0]


def test_sparklines_show_the_highest_highest_and_any_at_all() -> None:
    assert sparkline([0, 1, 4, 8]) == "▁▁▄█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"


def test_ids_are_shown_by_the_beginning_of_their_number() -> None:
    assert short("litellm_poll_0e0cf6ea-ab0f-4f93-bd57-7f7f6a2b3f1d") == "0e0cf6ea"
    assert short("resp_short") == "resp_short"
    assert short("resp_" + "b" * 100) == "resp_" + "b" * 18 + "…"
