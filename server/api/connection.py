"""Answers clients whose bytes are not valid HTTP, and clients that exceed the limit of open connections.

Without this module aiohttp answers malformed HTTP in plain text, and logs the stack and the offending line, which may
contain an API key.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import ContentEncodingError, TransferEncodingError

from server.api.middleware import SERVER, error_answer, new_request_id
from server.errors import Internal, MalformedBody, MalformedHttp, PolluxError, Unavailable

log = logging.getLogger("pollux.api")

UNBOUNDED = sys.maxsize
MOST_REFUSED = 32
"""How many connections above the limit get a 503 before they are closed. Further ones are dropped without an answer."""


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def refuse(self) -> None:
        """Answer this connection's request with 503, without handing it to the application."""
        self._request_handler = _no_room

    @property
    def unused(self) -> bool:
        """Whether it has not sent a request yet."""
        return not self._request_count

    @property
    def busy(self) -> bool:
        """Whether a request of it is under way: until its answer is written."""
        return self._request_in_progress or bool(self._messages)

    @property
    def idle(self) -> bool:
        """Whether it was used, and may be used again."""
        return not self.unused and not self.busy and self._waiter is not None

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

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
        return _last_answer(_meaning(exc))

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log an error of Pollux with its stack, but a client's error only by its type: its text may hold secrets."""
        error = kw.get("exc_info")
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            log.debug("a client sent malformed HTTP: %s", type(error).__name__)
        elif isinstance(error, ConnectionError):
            # Nothing else is connected to here. aiohttp itself writes to clients that ask to be told to send a body.
            log.debug("a client hung up: %s", type(error).__name__)
        else:
            super().log_exception(*args, **kw)


async def _no_room(_request: web.BaseRequest) -> web.StreamResponse:
    return _last_answer(Unavailable("This instance has no room for another connection. Try again shortly."))


def _last_answer(error: PolluxError) -> web.Response:
    """An error answer that closes the connection. It sets its own headers, since no middleware or signal runs here."""
    answer = error_answer(error)
    answer.headers["X-Request-Id"] = new_request_id()
    answer.headers["Server"] = SERVER
    answer.force_close()
    return answer


def _meaning(error: BaseException | None) -> PolluxError:
    if isinstance(error, ContentEncodingError | TransferEncodingError):
        return MalformedBody()
    return MalformedHttp(type(error).__name__) if isinstance(error, HttpProcessingError) else Internal()


class _Server(web.Server):
    """aiohttp's server with `Connection` for each client, and a limit that keeps the process within its open files."""

    def __init__(self, *args: Any, most_clients: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most = most_clients
        self._open = 0

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._most + MOST_REFUSED:
            transport.abort()
        elif self._open > self._most and isinstance(handler, Connection):
            handler.refuse()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open -= 1


class HttpRunner(web.AppRunner):
    """aiohttp's runner, which starts `_Server`.

    It overrides a private method of aiohttp; `tests/api/test_bad_input.py` fails if aiohttp stops calling it.
    """

    __slots__ = ("_most_clients",)

    def __init__(self, app: web.Application, *, most_clients: int = UNBOUNDED, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._most_clients = most_clients

    @property
    def unused(self) -> list[Connection]:
        """The connections that have not sent a request yet."""
        return [connection for connection in self._connections if connection.unused]

    @property
    def busy(self) -> list[Connection]:
        """The connections with a request that is not answered yet."""
        return [connection for connection in self._connections if connection.busy]

    def close_idle(self) -> None:
        """Close the connections that wait for another request."""
        for connection in self._connections:
            if connection.idle:
                connection.force_close()

    @property
    def _connections(self) -> list[Connection]:
        made = self.server.connections if self.server else []
        return [connection for connection in made if isinstance(connection, Connection) and connection.transport]

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            most_clients=self._most_clients,
            **made._kwargs,  # noqa: SLF001 - there is no other way to learn them
        )
