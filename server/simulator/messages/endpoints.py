"""The URLs of Messages."""

from aiohttp import web

from server.simulator.answering import answer
from server.simulator.context import SIMULATOR
from server.simulator.messages.creation import create_reply
from server.simulator.messages.script import encode_frame, message, script


def routes(base: str) -> list[web.RouteDef]:
    """The routes below a base path that ends in a slash, which may be a pattern."""
    return [web.post(f"{base}messages", create)]


def is_messages(request: web.Request) -> bool:
    """Whether a request is of this dialect, and so are the errors that answer it."""
    return request.path.endswith("/messages")


async def create(request: web.Request) -> web.StreamResponse:
    reply = await create_reply(request.app[SIMULATOR], await request.read())
    return await answer(request, reply, script, encode_frame, message)
