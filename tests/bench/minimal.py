"""The least that an aiohttp proxy can be: what Pollux's proxied mode is measured against.

python -m tests.bench.minimal PORT UPSTREAM
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
import orjson
import uvloop
from aiohttp import web

SESSION = web.AppKey("session", aiohttp.ClientSession)


def create_app(upstream: str) -> web.Application:
    async def forward(request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        headers = {"Content-Type": "application/json"}
        async with request.app[SESSION].post(
            f"{upstream}/responses", data=orjson.dumps(body), headers=headers
        ) as answer:
            if not body.get("stream"):
                return web.Response(
                    body=orjson.dumps(orjson.loads(await answer.read())), content_type="application/json"
                )
            stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await stream.prepare(request)
            async for chunk in answer.content.iter_any():
                await stream.write(chunk)
            await stream.write_eof()
            return stream

    async def session(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
            app[SESSION] = opened
            yield

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_post("/v1/responses", forward)
    return app


if __name__ == "__main__":
    web.run_app(
        create_app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop=uvloop.new_event_loop(),
        access_log=None,
        print=None,
    )
