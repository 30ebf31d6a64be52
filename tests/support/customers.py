"""Clients that want a response, whatever happens to the servers."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.support.replica import ALICE, CACHED
from tests.support.subscribers import ENDS, MISSED


class Customers:
    """They create responses, and try again elsewhere when that goes wrong, always with the same idempotency key."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.made: dict[str, str] = {}
        """The text of each response by its id."""

    async def create(self, texts: list[str], at_once: int = 20) -> None:
        turn = asyncio.Semaphore(at_once)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ALICE}"}) as http:

            async def one(number: int, text: str) -> None:
                async with turn:
                    self.made[await self._id_of(http, number, text)] = text

            await asyncio.gather(*(one(number, text) for number, text in enumerate(texts)))

    async def _id_of(self, http: aiohttp.ClientSession, number: int, text: str) -> str:
        body = {"model": CACHED, "input": text, "background": True}
        while True:
            number += 1
            url = f"{self.urls[number % len(self.urls)]}/v1/responses"
            try:
                async with http.post(url, json=body, headers={"Idempotency-Key": text}) as answer:
                    if answer.status != 503:
                        assert answer.status == 200, await answer.text()
                        response_id: str = (await answer.json())["id"]
                        return response_id
            except MISSED:
                pass
            await asyncio.sleep(0.1)

    def have_ends(self, events: list[dict[str, Any]]) -> bool:
        """Whether the events tell how all that they created has ended."""
        return self.made.keys() <= {event["data"]["id"] for event in events if event["type"] in ENDS}
