"""Below the application: what aiohttp answers where a client's bytes are no HTTP request, in the contract's shape.

By itself it would answer in plain text, and log an error with the stack and the offending line, which may hold a key.
"""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import ContentEncodingError, TransferEncodingError

from server.api.middleware import error_answer, new_request_id
from server.errors import Internal, MalformedBody, MalformedHttp, PolluxError

log = logging.getLogger("pollux.api")


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - it follows from the error
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes what the client sent
    ) -> web.StreamResponse:
        self.log_exception("request broke below the application", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        answer = error_answer(_meaning(exc))
        # Here no middleware and no signal runs.
        answer.headers["X-Request-Id"] = new_request_id()
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a defect of ours with its stack; what a client did wrong, only by its kind."""
        error = kw.get("exc_info")
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            log.debug("a client sent what is no HTTP request: %s", type(error).__name__)
        else:
            super().log_exception(*args, **kw)


def _meaning(error: BaseException | None) -> PolluxError:
    if isinstance(error, ContentEncodingError | TransferEncodingError):
        return MalformedBody()
    return MalformedHttp(type(error).__name__) if isinstance(error, HttpProcessingError) else Internal()


class _Server(web.Server):
    """aiohttp's, with our connections."""

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class HttpRunner(web.AppRunner):
    """aiohttp's, with our server. `tests/api/test_bad_input.py` notices if aiohttp stops asking for it here."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - there is no other way to learn them
        )
