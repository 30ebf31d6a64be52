"""`Expect` (RFC 9110, section 10.1.1): who asks before sending a body is told in time that it would be refused."""

from __future__ import annotations

from aiohttp import HttpVersion11, web

from server.api.context import CONTEXT
from server.api.middleware import authenticate, error_answer, name_request
from server.errors import ExpectationFailed, PolluxError, TooLarge


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Let the client send its body, or answer without it."""
    if request.version < HttpVersion11:
        return None  # such clients don't know the header
    name_request(request)
    try:
        given = request.headers["Expect"]
        if given.strip().lower() != "100-continue":
            raise ExpectationFailed(given)
        _check(request)
    except PolluxError as error:
        answer = error_answer(error)
        # The body may come all the same.
        answer.force_close()
        return answer
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # These bytes are no part of the answer, which has not begun.
    request.writer.output_size = 0
    return None


def _check(request: web.Request) -> None:
    """What can be said of a request without its body.

    Raises:
        Unauthorized, TooLarge

    """
    context = request.config_dict.get(CONTEXT)
    if context is None:
        return
    authenticate(request)
    limit_bytes = context.config.pollux.max_body_bytes
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
