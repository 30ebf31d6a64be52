"""The page that shows `/openapi.json`, in a real browser: all of it comes from here, and "Try it out" does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Browser
from tests.support.replica import ALICE, CACHED, MASTER_KEY, Replica

pytestmark = pytest.mark.filterwarnings("default")  # Playwright's are not ours


async def opened(page: Any, operation: str) -> Any:
    """The operation, ready to be executed."""
    shown = page.locator(f"#operations-{operation}")
    await shown.locator(".opblock-summary-control").click()
    await shown.locator("button.try-out__btn").click()
    return shown


async def executed(shown: Any, status: int) -> str:
    """What was answered."""
    await shown.locator("button.execute").click()
    await shown.locator(f".live-responses-table .response-col_status:has-text('{status}')").wait_for()
    return str(await shown.locator(".live-responses-table .highlight-code").first.inner_text())


async def test_who_is_logged_in_on_the_status_page_tries_operations_at_once(browser: Browser, pollux: Replica) -> None:
    async with browser.page(pollux, ALICE) as page:
        await page.goto(f"{pollux.url}/docs")
        assert page.url == f"{pollux.url}/docs/"
        models = await opened(page, "Models-listModels")
        assert CACHED in await executed(models, 200)


async def test_others_give_their_key_there_and_a_body_is_sent_as_its_example_has_it(
    browser: Browser, pollux: Replica
) -> None:
    async with browser.page(pollux, None) as page:
        await page.goto(f"{pollux.url}/docs/")
        create = await opened(page, "Responses-createResponse")
        assert "invalid_api_key" in await executed(create, 401)
        await page.click("button.authorize >> nth=0")
        await page.fill("input[name=bearer], #auth-bearer-value", MASTER_KEY)
        await page.click(".auth-btn-wrapper button.authorize >> nth=0")
        await page.click("button.btn-done")
        assert '"status": "queued"' in await executed(create, 200)


async def test_every_operation_is_shown_and_what_is_ours_is_marked(browser: Browser, pollux: Replica) -> None:
    async with pollux.http(None) as http:
        document = await (await http.get(f"{pollux.url}/openapi.json")).json()
    everywhere = (*document["paths"].values(), *document["webhooks"].values())
    described = [one for methods in everywhere for one in methods.values()]
    async with browser.page(pollux, None) as page:
        await page.goto(f"{pollux.url}/docs/")
        await page.locator(".opblock").nth(len(described) - 1).wait_for()
        assert await page.locator(".opblock").count() == len(described)
        assert await page.locator(".opblock .ours").count() == sum("x-pollux-extension" in one for one in described)
