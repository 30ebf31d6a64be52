"""The film in the README shows what the commands do."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.pictures.story import filmed
from tests.support.pages import ROOT
from tests.support.replica import free_port

COMMAND_LINE = ROOT / "deploy" / "pictures" / "command-line.svg"
TELLS = re.compile(r"\$|litellm_poll_|Watch it|or:|ID|✓ completed in|the server")
"""How lines begin that are the same in each run. How a text is broken into lines depends on its pauses."""
VARIES = (
    (r"(litellm_poll_|\b)[0-9a-f]{8}(-[0-9a-f-]+)?\b", "ID"),
    (r"\b[\d.]+ ?(ms|s|m)\b", "TIME"),
    (r"127.0.0.1:\d+", "HOST"),
    (r"~?\d+ (ev|tokens/s)", "SO MANY"),
    (r" +", " "),
)


def told_by(svg: str) -> set[str]:
    """The last picture, and whatever was written above it: less what differs from one run to the next."""
    root = ET.fromstring(svg)
    shots = root.findall("{http://www.w3.org/2000/svg}g")
    last = [shot for shot in shots if "l" in shot.get("class", "").split()]
    told = set()
    for shot in last:
        plain = " ".join("".join(text.itertext()) for text in shot)
        for pattern, word in VARIES:
            plain = re.sub(pattern, word, plain)
        if TELLS.match(plain.strip()):
            told.add(plain.strip())
    return told


@pytest.mark.slow
async def test_the_film_of_the_readme_tells_what_the_commands_do(
    simulator: str, store_url: str, tmp_path: Path
) -> None:
    """Where it fails after a change of the commands: `python -m tests.pictures` films them anew."""
    svg = await filmed(simulator, store_url, tmp_path, free_port())
    assert told_by(svg) == told_by(COMMAND_LINE.read_text(encoding="utf-8"))
    assert "kill -9" in svg
    assert "(the run began anew)" in svg
    assert not re.search(r"<script|href=|https?://(?!www.w3.org|127\.0\.0\.1)", svg), "nothing is loaded with it"
