"""The URLs of Chat Completions."""

from functools import partial

from aiohttp import web

from server.simulator.answering import answer
from server.simulator.chat.creation import create_reply
from server.simulator.chat.script import completion, encode_frame, script
from server.simulator.context import SIMULATOR


def routes(base: str) -> list[web.RouteDef]:
    """The routes below a base path that ends in a slash, which may be a pattern."""
    return [
        web.post("/openai/deployments/{deployment}/chat/completions", create),
        web.post(f"{base}chat/completions", create),
    ]


async def create(request: web.Request) -> web.StreamResponse:
    deployment = request.match_info.get("deployment")
    reply = await create_reply(request.app[SIMULATOR], await request.read(), deployment)
    options = reply.request.get("stream_options") or {}
    encode = partial(encode_frame, obfuscated=options.get("include_obfuscation") is not False)
    return await answer(request, reply, script, encode, completion)
