"""`Expect: 100-continue` (RFC 9110, section 10.1.1): refuses a request before its client has sent the body."""

from __future__ import annotations

from aiohttp import HttpVersion11, web

from server.api.authentication import authenticate
from server.api.context import LIVE, context_of
from server.api.middleware import error_answer, name_request
from server.errors import ExpectationFailed, PolluxError, TooLarge


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Tell the client to send its body, or return the error if the request is refused without it."""
    if request.version < HttpVersion11:
        return None  # HTTP/1.0 does not have the header
    name_request(request)
    try:
        given = request.headers["Expect"]
        if given.strip().lower() != "100-continue":
            raise ExpectationFailed(given)
        _check(request)
    except PolluxError as error:
        answer = error_answer(error)
        # The client may send the body anyway, which would be read as the next request.
        answer.force_close()
        return answer
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # aiohttp counted these bytes; without the reset it would look as if the answer had begun.
    request.writer.output_size = 0
    return None


def _check(request: web.Request) -> None:
    """Check what can be checked without the body: the API key and the declared length.

    Raises:
        Unauthorized, TooLarge

    """
    if LIVE not in request.app:
        return  # the process starts
    authenticate(request)
    limit_bytes = context_of(request).config.pollux.max_body_bytes
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
