"""What providers of other dialects answer against all rules is told as their failure, never as ours."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from tests.scenarios.test_dialects import config
from tests.support.replica import running_replica
from tests.support.upstreams import running_script

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/html", b"<title>Sign in</title>"), ("application/json", b""), ("application/json", b'{"choices":5}')],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_no_completion_is_the_providers_failure(
    content_type: str, body: bytes, stream: bool, store_url: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type)

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_script(answer))
        pollux = await stack.enter_async_context(running_replica(config(upstream.base_url, ("m", "groq/m")), store_url))
        http = await stack.enter_async_context(pollux.http())
        refused = await http.post("responses", json={"model": "m", "input": "hi", "stream": stream})
        error = (await refused.json())["error"]
        assert (refused.status, error["code"]) == (502, "upstream_unavailable")
        assert "neither a stream nor a finished response" in error["message"]
