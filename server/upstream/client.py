"""Talking to a deployment over HTTP: one session a process, clear errors, a limit to every silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import aiohttp
from yarl import URL

from server import __version__
from server.errors import ModelNotServed, PolluxError, UpstreamTimeout, UpstreamUnavailable
from server.protocol.litellm_fields import NOTHING, Wishes
from server.protocol.reasons import Remedy
from server.upstream.answer import Answer
from server.upstream.deployments import Deployment
from server.upstream.health import Health
from server.upstream.refusals import is_passing, refusal_of, remedy_of, retry_after_of
from server.upstream.transport import tls_of

log = logging.getLogger("pollux.upstream")

PIECE_BYTES = 512 * 1024
"""A longer request, with an image in it, is sent piece by piece: others have their turn in between."""
_ACCOUNT_IS_OF_NO_USE = (401, 402, 429)
"""With a wrong key, or without quota, a deployment fails everybody; a 403 or 404 may be about this request alone."""


class Call(NamedTuple):
    """One operation on a deployment."""

    method: str
    path: tuple[str, ...] = ()
    query: str = ""
    make_body: Callable[[], bytes] | None = None
    """Called for each try. Nobody holds what it makes while the answer comes: it may be long, and the answer slow."""
    headers: Mapping[str, str] | None = None
    stream: bool = False
    wishes: Wishes = NOTHING

    @property
    def creates(self) -> bool:
        """Whether it makes a response; all others are about one."""
        return self.method == "POST" and not self.path


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may be silent. A deployment's own `timeout` and `stream_timeout` go before these."""

    connect_s: float
    first_byte_s: float
    """Until a streamed answer begins (its status line), connecting and sending included."""
    stream_s: float
    """Between two pieces of a stream."""


class Upstream:
    """The connection to all deployments."""

    def __init__(self, session: aiohttp.ClientSession, health: Health, timeouts: Timeouts) -> None:
        self.health = health
        self._session = session
        self._timeouts = timeouts

    @asynccontextmanager
    async def open(self, deployment: Deployment, call: Call) -> AsyncIterator[Answer]:
        """The answer to one call, of status 2xx. Leaving the block early closes the socket.

        How a call that makes a response went is told to the deployments' health.

        Raises:
            UpstreamRefusal: any other status
            UpstreamUnavailable, UpstreamTimeout: also while the body is read, inside the block

        """
        if deployment.unusable is not None:
            raise ModelNotServed(deployment.model_name, deployment.unusable)
        begun = False
        try:
            async with (
                self._first_byte(deployment, call) as first_byte,
                self._request(deployment, call) as response,
            ):
                if first_byte is not None:
                    first_byte.reschedule(None)
                answer = Answer(response)
                if not 200 <= answer.status < 300:
                    raise self._noted(deployment, call, await refusal_of(deployment, answer))
                begun = True
                if call.creates:
                    self.health.succeeded(deployment)
                yield answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._noted(deployment, call, _broken(deployment, error, begun=begun)) from error

    def _request(self, deployment: Deployment, call: Call) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        body = call.make_body() if call.make_body is not None else None
        return self._session.request(
            call.method,
            URL(deployment.url(*call.path, query=call.query), encoded=True),
            data=_pieces(body) if body is not None and len(body) > PIECE_BYTES else body,
            headers=_headers(deployment, call, None if body is None else len(body)),
            timeout=_client_timeout(
                self._timeouts, call.wishes.timeout_s or deployment.timeout_s, deployment.stream_timeout_s, call.stream
            ),
            proxy=deployment.proxy,
            ssl=tls_of(deployment.verify),
            # Following one would hand the credential to whatever it names.
            allow_redirects=False,
        )

    def _noted(self, deployment: Deployment, call: Call, error: PolluxError) -> PolluxError:
        return self.noted(deployment, error) if call.creates else error

    def noted(self, deployment: Deployment, error: PolluxError) -> PolluxError:
        """The same error, by which a call that makes a response failed, its deployment's health told of it."""
        # A conflict is between this request and another one; the deployment is well.
        if is_passing(error) and error.status != 409:
            self.health.failed(deployment, retry_after_s=retry_after_of(error), limited=error.status == 429)
        elif remedy_of(error) is Remedy.ELSEWHERE and error.status in _ACCOUNT_IS_OF_NO_USE:
            self.health.failed(deployment, limited=True)
        return error

    def _first_byte(self, deployment: Deployment, call: Call) -> AbstractAsyncContextManager[asyncio.Timeout | None]:
        # An answer that is not streamed begins when it is complete: there the limit of the whole call is enough.
        if not call.stream:
            return nullcontext()
        wished_s = call.wishes.stream_timeout_s or call.wishes.timeout_s
        return asyncio.timeout(wished_s or deployment.stream_timeout_s or self._timeouts.first_byte_s)


@lru_cache(1024)
def _client_timeout(
    timeouts: Timeouts,
    timeout_s: float,
    stream_timeout_s: float | None,
    stream: bool,  # noqa: FBT001
) -> aiohttp.ClientTimeout:
    # A deployment that may be silent for longer before its first byte may be so after it.
    silence_s = max(timeouts.stream_s, stream_timeout_s or 0.0)
    return aiohttp.ClientTimeout(
        total=None if stream else timeout_s,
        sock_connect=timeouts.connect_s,
        sock_read=silence_s if stream else None,
    )


def new_session() -> aiohttp.ClientSession:
    """One for the whole process: no cookies (they would mix clients), no limit (each job has its connection)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"pollux/{__version__}"},
        # A lifecycle event echoes instructions and tools: one line of a stream may be long.
        read_bufsize=256 * 1024,
    )


def _headers(deployment: Deployment, call: Call, length: int | None) -> dict[str, str]:
    accept = "text/event-stream" if call.stream else "application/json"
    made = {"Accept": accept, **(call.headers or {}), **deployment.headers}
    if length is not None:
        made["Content-Type"] = "application/json"
        made["Content-Length"] = str(length)
    return made


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def _broken(deployment: Deployment, error: Exception, *, begun: bool) -> PolluxError:
    """What a call failed of that got no answer, or only a part of one."""
    # Who did not even connect has not asked: that is tried again where a silence after the question is not.
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamTimeout("The provider did not answer in time.")
    log.info("upstream of %s: %s: %s", deployment.model_name, type(error).__name__, error)
    return UpstreamUnavailable("The provider could not be reached, or broke the connection.", begun=begun)
