"""The official SDK as a client of ours."""

from __future__ import annotations

import ssl
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

_TRUSTED = ssl.create_default_context()
"""All clients share it. Reading the machine's authorities costs each of them as much as a whole test."""


def new_sdk(base_url: str, key: str, **options: Any) -> AsyncOpenAI:
    """A client that does not retry on its own unless told so."""
    options = {"max_retries": 0, "http_client": DefaultAsyncHttpxClient(verify=_TRUSTED), **options}
    return AsyncOpenAI(base_url=base_url, api_key=key, **options)
