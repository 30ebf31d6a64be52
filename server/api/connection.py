"""A client's connection, and the server that makes them: what aiohttp's own lack.

It answers clients whose bytes are not valid HTTP (aiohttp does so in plain text, and logs the stack and the offending
line, which may contain an API key), and those for whom there is no room. It can tell what the client owes, for
`deadlines.py`, and encrypt.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import BadHttpMessage, ContentEncodingError, LineTooLong, TransferEncodingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from server.api.access import AccessLog
from server.api.encryption import Encrypted, Encryption, shows_certificate
from server.api.middleware import SERVER, close_after, error_answer, new_request_id
from server.api.peers import Place
from server.api.room import Full, Room
from server.errors import (
    CertificateRequired,
    HeadTooLarge,
    Internal,
    MalformedBody,
    MalformedHttp,
    PolluxError,
    RequestTimeout,
    UriTooLong,
)

log = logging.getLogger("pollux.api")

UNBOUNDED = sys.maxsize
LONGEST_LINE_BYTES = 64 * 1024
"""The longest request line. It has room for the 200 composite ids, some 260 bytes each, of one GET /responses?ids=…."""
WITHOUT_CERTIFICATE = frozenset({"/livez", "/readyz"})
"""What a client without a certificate may ask where others must show one: an orchestrator's probes have none."""


class Owed(StrEnum):
    """What a client has to do next."""

    HEAD = "the headers of a request"
    BODY = "the body of a request"
    READING = "taking an answer"


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("received_bytes", "wire")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.received_bytes = 0
        self.wire: asyncio.Transport | None = None
        """The socket's transport, below that of TLS. aiohttp's `transport` is None as soon as it closes the connection,
        which is when the client may still have to take an answer."""

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        super().data_received(data)

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: Callable[..., Any]
    ) -> tuple[web.StreamResponse, bool]:
        try:
            return await super()._handle_request(request, start_time, request_handler)
        except asyncio.CancelledError:
            # aiohttp tells its access log nothing of these.
            if isinstance(self.access_logger, AccessLog) and start_time is not None:
                self.access_logger.log_cut(request, self._loop.time() - start_time)
            raise

    @property
    def requests(self) -> int:
        """How many requests of it have begun: their headers were complete."""
        return self._request_count

    def owes(self) -> Owed | None:
        """What its client has to do before anything else can happen; None while it may rest."""
        if self._current_request is not None:
            return Owed.BODY if self._lacks_body(self._current_request) else None  # a stream has its own deadline
        if self._unsent_bytes:
            return Owed.READING
        waits = self._waiter is not None and not self._waiter.done() and not self._messages
        return Owed.HEAD if waits and self.transport is not None else None

    def done_bytes(self, owed: Owed) -> int:
        """How far it is; only the difference between two of these means something."""
        return -self._unsent_bytes if owed is Owed.READING else self.received_bytes

    def time_out(self, error: RequestTimeout) -> None:
        """Answer the request, of which a part is missing, with this error, and close."""
        if self._current_request is not None:
            self._current_request.content.set_exception(error)  # raised where the body is read
            return
        self._messages.append((_ErrInfo(status=error.status, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lacks_body(self, request: web.BaseRequest) -> bool:
        # While reading is paused the client is not to blame.
        return not (request.content.is_eof() or self._reading_paused or self._buffer_paused)

    @property
    def _unsent_bytes(self) -> int:
        return self.wire.get_write_buffer_size() if self.wire is not None else 0

    def refuse(self, error: PolluxError) -> None:
        """Answer this connection's request with an error, without handing it to the application."""
        self._request_handler = _refusing(error)

    def ask_for_certificate(self) -> None:
        """Refuse requests, except probes, unless the client has shown a certificate."""
        if not shows_certificate(self.transport) and self._request_handler is not None:
            self._request_handler = _probes_only(self._request_handler)

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

    @property
    def answered_at(self) -> float:
        """When it began to be idle, by the clock of the event loop."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    def abort(self) -> None:
        if self.wire is not None:
            self.wire.abort()

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
        if isinstance(error, HttpProcessingError | web.RequestPayloadError | RequestTimeout):
            log.debug("a client sent no valid HTTP, or too slowly: %s", type(error).__name__)
        elif isinstance(error, ConnectionError):
            # Nothing else is connected to here. aiohttp itself writes to clients that ask to be told to send a body.
            log.debug("a client hung up: %s", type(error).__name__)
        else:
            super().log_exception(*args, **kw)


_Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _refusing(error: PolluxError) -> _Handle:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return _last_answer(error)

    return refuse


def _probes_only(handle: _Handle) -> _Handle:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await handle(request) if request.path in WITHOUT_CERTIFICATE else _last_answer(CertificateRequired())

    return answer


def _last_answer(error: PolluxError) -> web.Response:
    """An error answer that closes the connection. It sets its own headers, since no middleware or signal runs here."""
    answer = error_answer(error)
    answer.headers["X-Request-Id"] = new_request_id()
    answer.headers["Server"] = SERVER
    close_after(answer)
    return answer


TOO_MANY_HEADERS = "Too many headers received"
"""aiohttp's words for it; the error has no class of its own."""


def _meaning(error: BaseException | None) -> PolluxError:
    if isinstance(error, PolluxError):
        return error
    if isinstance(error, ContentEncodingError | TransferEncodingError):
        return MalformedBody()
    if isinstance(error, LineTooLong):
        limit = error.args[1]
        return UriTooLong(limit) if limit == LONGEST_LINE_BYTES else HeadTooLarge()
    if isinstance(error, BadHttpMessage) and error.message == TOO_MANY_HEADERS:
        return HeadTooLarge()
    return MalformedHttp(type(error).__name__) if isinstance(error, HttpProcessingError) else Internal()


class _Server(web.Server):
    """aiohttp's server with `Connection` for each client, and a limit that keeps the process within its open files."""

    def __init__(self, *args: Any, room: Room, encryption: Encryption | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = room
        self._encryption = encryption

    def __call__(self) -> Any:
        connection = Connection(self, loop=self._loop, **self._kwargs)
        if self._encryption is None:
            return connection
        return Encrypted(connection, self._encryption, self._enter, self._room.leave)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if not isinstance(handler, Connection):
            return
        if self._encryption is None:
            self._enter(handler, transport)
        elif self._encryption.asks_for_certificates:
            handler.ask_for_certificate()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if self._encryption is None:
            self._room.leave(handler.peername)

    def _enter(self, connection: Connection, transport: asyncio.Transport) -> None:
        """Count a connection; one too many is refused, or dropped."""
        connection.wire = transport
        place: Place = transport.get_extra_info("peername")
        try:
            refusal = self._room.enter(place)
        except Full:
            transport.abort()
            return
        if refusal is not None:
            connection.refuse(refusal)


class HttpRunner(web.AppRunner):
    """aiohttp's runner, which starts `_Server`.

    It overrides a private method of aiohttp; `tests/api/test_bad_input.py` fails if aiohttp stops calling it.
    """

    __slots__ = ("_encryption", "room")

    def __init__(
        self, app: web.Application, *, room: Room | None = None, encryption: Encryption | None = None, **kwargs: Any
    ) -> None:
        super().__init__(app, **kwargs)
        self.room = room or Room(UNBOUNDED)
        self._encryption = encryption

    @property
    def unused(self) -> list[Connection]:
        """The connections that have not sent a request yet."""
        return [connection for connection in self._connections if connection.unused]

    @property
    def busy(self) -> list[Connection]:
        """The connections with a request that is not answered yet."""
        return [connection for connection in self._connections if connection.busy]

    def close_idle(self, for_s: float = 0.0) -> None:
        """Close the connections that wait for another request, and have done so for this long."""
        now = asyncio.get_running_loop().time()
        for connection in self._connections:
            if connection.idle and now - connection.answered_at >= for_s:
                connection.force_close()

    @property
    def _connections(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.transport]

    @property
    def connections(self) -> list[Connection]:
        """All of them, also those that are closed as soon as their clients have taken the last answer."""
        made = self.server.connections if self.server else []
        return [connection for connection in made if isinstance(connection, Connection)]

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            room=self.room,
            encryption=self._encryption,
            **made._kwargs,  # noqa: SLF001 - there is no other way to learn them
        )
