"""What `pollux doctor` has found, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from rich.table import Table
from rich.text import Text

from server.cli.output import safe, say, say_json
from server.cli.terminal import console
from server.cli.trouble import Code
from server.cli.words import several


class Verdict(StrEnum):
    FINE = "ok"
    REMARK = "warn"
    WRONG = "fail"


STYLES = {Verdict.FINE: ("✓", "green"), Verdict.REMARK: ("!", "yellow"), Verdict.WRONG: ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    verdict: Verdict
    told: str


def fine(about: str, told: str) -> Finding:
    return Finding(about, Verdict.FINE, told)


def remark(about: str, told: str) -> Finding:
    """Something that somebody should know."""
    return Finding(about, Verdict.REMARK, told)


def wrong(about: str, told: str) -> Finding:
    """Something that has to be put right."""
    return Finding(about, Verdict.WRONG, told)


def print_findings(findings: Iterable[Finding], *, as_json: bool) -> Code:
    """Print all findings. Returns 1 if something is wrong, else 0."""
    found = list(findings)
    bad = sum(one.verdict is Verdict.WRONG for one in found)
    if as_json:
        for one in found:
            say_json(asdict(one))
        return Code.FAILED if bad else Code.FINE
    out = console()
    if out.is_terminal:
        out.print(_table(found))
    else:
        for one in found:
            say(f"{one.verdict:<5} {one.about:<12} {one.told}")
    remarks = sum(one.verdict is Verdict.REMARK for one in found)
    all_of_it = f"{several(len(found), 'check')}: {bad} wrong, {remarks} to know of"
    out.print(Text("\nAll is well." if not bad and not remarks else f"\n{all_of_it}.", "red" if bad else "green"))
    return Code.FAILED if bad else Code.FINE


def _table(found: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    last = ""
    for one in found:
        mark, colour = STYLES[one.verdict]
        about, last = "" if one.about == last else one.about, one.about
        table.add_row(Text(about, "bold"), Text(mark, colour), Text(safe(one.told)))
    return table
