"""All pages for people: their links lead somewhere, and their examples are what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import parse_config
from server.config.unused import keys_without_effect
from tests.support.pages import DOCS, README, ROOT

HAND_BOOKS = [*(ROOT / "deploy").glob("*.md"), ROOT / "deploy" / "helm" / "pollux" / "README.md"]
PAGES = sorted([README, ROOT / "CHANGELOG.md", *DOCS, *HAND_BOOKS])
RUN = (Path(__file__).parent / "test_readme.py").read_text(encoding="utf-8")
A_MODEL = {"model_name": "gpt-5.2", "litellm_params": {"model": "openai/gpt-5.2", "api_key": "sk-x"}}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The examples in these languages, each with the heading above it."""
    found, heading = [], ""
    pattern = re.compile(r"^#+ (?P<heading>.+)$|^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
    for match in pattern.finditer(page.read_text(encoding="utf-8")):
        heading = match["heading"] or heading
        if match["language"] in languages:
            found.append((heading, match["code"]))
    return found


@each_page
def test_every_link_and_picture_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_every_program_among_the_examples_is_run_by_a_test(page: Path) -> None:
    for heading, code in blocks(page, "sh", "python", "js", "ruby", "toml"):
        assert f'("{heading}"' in RUN, f"nothing runs the example of {heading!r}:\n{code}"


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_every_piece_of_a_config_is_understood(page: Path) -> None:
    for heading, code in blocks(page, "yaml"):
        piece: dict[str, Any] = yaml.safe_load(code)
        environ = dict.fromkeys(re.findall(r"os\.environ/(\w+)", code), "sk-from-the-environment")
        config = parse_config({"model_list": [A_MODEL], **piece}, {**environ, "ANTHROPIC_API_KEY": "sk-ant"})
        assert list(keys_without_effect(config)) == [], heading
