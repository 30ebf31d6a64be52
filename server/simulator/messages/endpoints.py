"""The URLs of Messages."""

from aiohttp import web

from server.simulator.answering import answer, json_response
from server.simulator.context import SIMULATOR
from server.simulator.messages.creation import create_reply
from server.simulator.messages.script import encode_frame, message, script
from server.simulator.reply import given_tokens


def routes(base: str) -> list[web.RouteDef]:
    """The routes below a base path that ends in a slash, which may be a pattern."""
    return [web.post(f"{base}messages", create), web.post(f"{base}messages/count_tokens", count_tokens)]


def is_messages(request: web.Request) -> bool:
    """Whether a request is of this dialect, and so are the errors that answer it."""
    return request.path.endswith(("/messages", "/messages/count_tokens"))


async def count_tokens(request: web.Request) -> web.Response:
    reply = await create_reply(request.app[SIMULATOR], await request.read(), limited=False)
    return json_response({"input_tokens": given_tokens(reply)})


async def create(request: web.Request) -> web.StreamResponse:
    reply = await create_reply(request.app[SIMULATOR], await request.read())
    return await answer(request, reply, script, encode_frame, message)
