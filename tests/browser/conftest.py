"""A browser with the status page in it. Whatever goes wrong in the page fails the test in which it does."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.replica import ALICE, Replica

api = pytest.importorskip("playwright.async_api", reason="the browser's tests run by .ci/browser")
CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
EXPECTED = "the server responded with a status of"
"""The browser's own line about an answer that is an error: the page shows what it says."""


@dataclass
class Browser:
    """One browser, and what it has complained about."""

    chromium: Any
    complaints: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def page(self, replica: Replica, key: str | None = ALICE, **options: Any) -> AsyncIterator[Any]:
        """The page in a window of its own, entered with this key."""
        context = await self.chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        page = await context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.note(str(error)))
        page.on("request", lambda request: self._look(replica, request.url))
        try:
            await page.goto(f"{replica.url}/ui/")
            if key is not None:
                await page.fill("input[type=password]", key)
                await page.keyboard.press("Enter")
                await page.wait_for_selector(".live.on")
            yield page
        finally:
            await context.close()

    def _hear(self, line: Any) -> None:
        if line.type == "error" and EXPECTED not in line.text:
            self.note(line.text)

    def _look(self, replica: Replica, url: str) -> None:
        if not url.startswith(replica.url):
            self.note(f"asked {url}")

    def note(self, complaint: str) -> None:
        self.complaints.append(complaint)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    async with api.async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        made = Browser(chromium)
        yield made
        await chromium.close()
    assert made.complaints == []
