"""A background response from the client's first request to its last, with the official SDK."""

from __future__ import annotations

from openai import AsyncOpenAI

from tests.support.replica import CACHED


async def test_a_client_hangs_up_and_polls_until_it_is_completed(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model=CACHED, input="a unicorn [[delay_ms=20]]", background=True)
    assert created.status == "queued"
    assert created.id.startswith("litellm_poll_")
    assert created.output == []

    texts = []
    while (response := await client.responses.retrieve(created.id)).status in ("queued", "in_progress"):
        texts.append(response.output_text)
    assert response.status == "completed"
    assert response.id == created.id
    assert "a unicorn" in response.output_text
    assert response.usage is not None
    assert texts == sorted(texts, key=len), "partial output only grows"
    assert any(0 < len(text) < len(response.output_text) for text in texts)
