"""The runbook: its links lead somewhere, and the limits that it names are those of the config."""

from __future__ import annotations

import re

import pytest

from server.config.ours import Pollux
from server.config.sections import BackgroundModeSection
from tests.support.balancers import DEPLOY

ROOT = DEPLOY.parent
PAGES = [DEPLOY / name for name in ("README.md", "packages.md", "migration.md")]
TEXTS = {page: page.read_text(encoding="utf-8") for page in (*PAGES, ROOT / "README.md")}
LINKS = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]) if "://" not in link]
LIMITS = re.findall(
    r"^\| `([\w.]+)` \| (\w+) \|", TEXTS[PAGES[0]].partition("\n## Limits\n")[2].partition("\n## ")[0], re.MULTILINE
)


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_every_link_leads_somewhere(page: object, link: str) -> None:
    place, _, anchor = link.partition("#")
    there = (DEPLOY / place).resolve() if place else page
    if anchor:
        assert anchor in anchors(TEXTS[there])  # type: ignore[index]
    else:
        assert (DEPLOY / place).exists()


def test_there_are_limits() -> None:
    assert len(LIMITS) > 10


@pytest.mark.parametrize(("name", "default"), LIMITS)
def test_a_limit_is_what_the_config_says(name: str, default: str) -> None:
    field = {**Pollux.model_fields, "responses.background_mode.ttl": BackgroundModeSection.model_fields["ttl"]}[name]
    assert str(field.default).lower() == default
