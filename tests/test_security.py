"""The table of threats in deploy/SECURITY.md: each row is whole, and names tests that pytest collects."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "deploy" / "SECURITY.md").read_text(encoding="utf-8")
HEAD = ["asset", "threat", "what is done", "whose duty", "tests"]
ROWS = [
    cells
    for line in PAGE.splitlines()
    if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("|").split(" | ")]) != HEAD
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}"[:80])
def test_each_threat_has_an_answer_a_duty_and_tests(row: list[str]) -> None:
    assert len(row) == len(HEAD)
    assert all(row)
    assert re.search(r"ours|yours|receiver's", row[3])
    named = re.findall(r"`([^`]+)`", row[4])
    assert ", ".join(f"`{name}`" for name in named) == row[4].strip()
    for name in named:
        file, _, function = name.partition("::")
        assert function in collected(TESTS / file), f"{name} is no test"


def collected(file: Path) -> set[str]:
    """The tests in a file, as pytest finds them by name."""
    assert re.fullmatch(r"test_\w+\.py", file.name)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_no_threat_stands_there_twice() -> None:
    assert len(ROWS) > 30
    told = [(row[0], row[1]) for row in ROWS]
    assert len(told) == len(set(told))
