"""The documentation: the README, and the pages that it leads to."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "deploy" / "docs").glob("*.md"))
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def section(title: str, *pages: Path) -> str:
    """The text below a heading, with the sections in it. It must be the heading of one place in these pages.

    Without pages, it is looked for in the README and in all of `deploy/docs`.
    """
    found = [text for page in pages or (README, *DOCS) for text in _below(title, page.read_text(encoding="utf-8"))]
    assert len(found) == 1, f"{title!r} is the heading of {len(found)} sections"
    return found[0]


def _below(title: str, text: str) -> list[str]:
    outside_code = _CODE.sub(lambda block: block[0].replace("\n#", "\n "), text)
    headings = [(m.start(), m.end(), len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.+)\n", outside_code, re.MULTILINE)]
    return [
        text[end : next((start for start, _, depth, _ in headings if start >= end and depth <= mine), len(text))]
        for _, end, mine, name in headings
        if name == title
    ]
