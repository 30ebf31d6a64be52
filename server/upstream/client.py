"""The HTTP client for deployments: one session per process, clear errors, and a timeout for every silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import aiohttp
from yarl import URL

from server import __version__
from server.errors import ModelNotServed, PolluxError, UpstreamTimeout, UpstreamUnavailable
from server.keyring import is_guest
from server.protocol.reasons import Remedy
from server.upstream.answer import Answer
from server.upstream.call import Call
from server.upstream.credential import Outgoing
from server.upstream.deployments import Deployment, not_for_guests
from server.upstream.grants import Grants
from server.upstream.health import Health
from server.upstream.refusals import is_passing, refusal_of, remedy_of, retry_after_of
from server.upstream.speech import Speech, spoken
from server.upstream.transport import tls_of

log = logging.getLogger("pollux.upstream")

PIECE_BYTES = 512 * 1024
"""A longer request, such as one with an image, is sent in pieces, so that other requests are served in between."""
_NOT_LET_IN = (401, 403)
"""Statuses of a credential that has ended or was revoked."""
_ACCOUNT_IS_OF_NO_USE = (401, 402, 429)
"""Statuses of a wrong key or a spent quota, which fail every request; a 403 or 404 may concern this request alone."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may be silent. A deployment's own `timeout` and `stream_timeout` take precedence."""

    connect_s: float = 10.0
    first_byte_s: float = 120.0
    """Until the status line of a streamed answer; includes connecting and sending."""
    stream_s: float = 600.0
    """Between two pieces of a stream."""


class Upstream:
    """The connection to all deployments."""

    def __init__(self, session: aiohttp.ClientSession, health: Health, grants: Grants) -> None:
        self.health = health
        self.grants = grants
        self._session = session
        self._timeouts = Timeouts()
        self._newest: Mapping[str, Deployment] = {}

    def heed(self, timeouts: Timeouts, deployments: Sequence[Deployment]) -> None:
        """Make further calls by these timeouts, and with the credentials that these deployments have."""
        self._timeouts = timeouts
        self._newest = {deployment.id: deployment for deployment in deployments}
        self.grants.keep(deployment.credential for deployment in deployments)

    def _renewed(self, deployment: Deployment) -> Deployment:
        """The deployment of work that began under an earlier config, with the credential that it has now.

        A key that was replaced may be revoked at any time, and the next call of a run is as good with the new one. All
        else stays as it was when the work began.
        """
        newest = self._newest.get(deployment.id, deployment)
        return deployment if newest is deployment else deployment.let_in_like(newest)

    @asynccontextmanager
    async def open(self, deployment: Deployment, call: Call) -> AsyncIterator[Answer]:
        """Make the call and give its 2xx answer. Leaving the block early closes the socket.

        The success or failure of a call that creates a response is recorded in the deployment's health.

        Raises:
            Forbidden: the call is a guest's, and the deployment does not forward its key
            Untranslatable: the provider can't be told a part of the request
            UpstreamRefusal: the status is not 2xx
            UpstreamUnavailable, UpstreamTimeout: also while the body is read, inside the block

        """
        deployment = self._renewed(deployment)
        if deployment.unusable is not None:
            raise ModelNotServed(deployment.model_name, deployment.unusable)
        key = call.key if deployment.forwards_key else None
        if call.key is not None and is_guest(call.key.owner) and key is None:
            raise not_for_guests(deployment.model_name)
        begun = False
        speech = spoken(deployment, call)
        reply = speech.reply
        granted = {} if key else await self._granted(deployment, call, speech)
        try:
            async with (
                self._first_byte(deployment, call) as first_byte,
                self._request(deployment, call, speech, granted) as response,
            ):
                del speech  # its body may be large
                if first_byte is not None:
                    first_byte.reschedule(None)
                answer = Answer(response, reply, deployment.operation.framing)
                if not 200 <= answer.status < 300:
                    if answer.status in _NOT_LET_IN and key is None:
                        self.grants.refused(deployment.credential)
                    raise self._noted(deployment, call, await refusal_of(deployment, answer, key))
                begun = True
                if call.creates:
                    self.health.succeeded(deployment)
                yield answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._noted(deployment, call, _broken(deployment, error, begun=begun)) from error

    async def _granted(self, deployment: Deployment, call: Call, speech: Speech) -> Mapping[str, str]:
        """The headers by which the deployment's credential lets this request in."""
        try:
            return await self.grants.headers(deployment.credential, Outgoing(call.method, speech.url, speech.body))
        except UpstreamUnavailable as error:
            raise self._noted(deployment, call, error) from error

    def _request(
        self, deployment: Deployment, call: Call, speech: Speech, granted: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        body = speech.body
        return self._session.request(
            call.method,
            URL(speech.url, encoded=True),
            data=_pieces(body) if body is not None and len(body) > PIECE_BYTES else body,
            headers=_headers(deployment, call, None if body is None else len(body)) | {**speech.headers, **granted},
            timeout=_client_timeout(
                self._timeouts, call.wishes.timeout_s or deployment.timeout_s, deployment.stream_timeout_s, call.stream
            ),
            proxy=deployment.proxy,
            ssl=tls_of(deployment.verify),
            # Following a redirect would send the credential to whichever host it names.
            allow_redirects=False,
        )

    def _noted(self, deployment: Deployment, call: Call, error: PolluxError) -> PolluxError:
        return self.noted(deployment, error) if call.creates else error

    def noted(self, deployment: Deployment, error: PolluxError) -> PolluxError:
        """The same error, by which a call that makes a response failed, its deployment's health told of it."""
        if deployment.forwards_key and error.status in _ACCOUNT_IS_OF_NO_USE:
            return error  # one client's key, which tells nothing about that of the next
        # A conflict is between this request and another one; the deployment is well.
        if is_passing(error) and error.status != 409:
            self.health.failed(deployment, retry_after_s=retry_after_of(error), limited=error.status == 429)
        elif remedy_of(error) is Remedy.ELSEWHERE and error.status in _ACCOUNT_IS_OF_NO_USE:
            self.health.failed(deployment, limited=True)
        return error

    def _first_byte(self, deployment: Deployment, call: Call) -> AbstractAsyncContextManager[asyncio.Timeout | None]:
        # An answer that is not streamed begins only when it is complete, so the timeout of the whole call suffices.
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
    # A longer `stream_timeout` applies to silences after the first byte too.
    silence_s = max(timeouts.stream_s, stream_timeout_s or 0.0)
    return aiohttp.ClientTimeout(
        total=None if stream else timeout_s,
        sock_connect=timeouts.connect_s,
        sock_read=silence_s if stream else None,
    )


def new_session() -> aiohttp.ClientSession:
    """The process's session: no cookies, which would mix clients, and no limit, since each job needs a connection."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"pollux/{__version__}"},
        # A lifecycle event echoes instructions and tools: one line of a stream may be long.
        read_bufsize=256 * 1024,
    )


def _headers(deployment: Deployment, call: Call, length: int | None) -> dict[str, str]:
    accept = deployment.operation.framing.value if call.stream else "application/json"
    forwarded = call.key if deployment.forwards_key else None
    own = deployment.headers if forwarded is None else deployment.headers_with(forwarded.value)
    made = {"Accept": accept, **(call.headers or {}), **own}
    if length is not None:
        made["Content-Type"] = "application/json"
        made["Content-Length"] = str(length)
    return made


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def _broken(deployment: Deployment, error: Exception, *, begun: bool) -> PolluxError:
    """The error for a call that got no answer, or only a part of one."""
    # A timeout while connecting counts as unavailable: the request was not sent, so the call can safely be repeated.
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamTimeout("The provider did not answer in time.")
    log.info("upstream of %s: %s: %s", deployment.model_name, type(error).__name__, error)
    return UpstreamUnavailable("The provider could not be reached, or broke the connection.", begun=begun)
