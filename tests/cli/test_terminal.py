"""How little room is used well: durations, columns, lines."""

from __future__ import annotations

import pytest

from server.cli.ids import short
from server.cli.live import _lines
from server.cli.terminal import GAP, _fitted
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


def test_columns_are_cut_before_they_are_left_out_and_an_id_never_is() -> None:
    columns, widths = ("ID", "MODEL", "AGE", "METADATA"), [8, 20, 5, 30]
    whole = sum(widths) + 3 * GAP
    assert _fitted(columns, widths, whole) == widths
    assert _fitted(columns, widths, whole - 10) == [8, 20, 5, 20]
    assert _fitted(columns, widths, whole - 24) == [8, 18, 5, 8]
    assert _fitted(columns, widths, 30) == [8, 8, 5, 0]
    assert _fitted(columns, widths, 10) == [8, 0, 5, 0]


def test_sparklines_show_the_highest_highest_and_any_at_all() -> None:
    assert sparkline([0, 1, 4, 8]) == "▁▁▄█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"


def test_ids_are_shown_by_the_beginning_of_their_number() -> None:
    assert short("litellm_poll_0e0cf6ea-ab0f-4f93-bd57-7f7f6a2b3f1d") == "0e0cf6ea"
    assert short("resp_short") == "resp_short"
    assert short("resp_" + "b" * 100) == "resp_" + "b" * 18 + "…"
