"""Talking to a deployment over HTTP: one session a process, clear errors, a limit to every silence."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

import aiohttp
import orjson
from yarl import URL

from server import __version__
from server.errors import PolluxError, UpstreamRefusal, UpstreamTimeout, UpstreamUnavailable
from server.protocol import jsontext
from server.protocol.reasons import Fields, Remedy, pause_in, reason_in, reason_of, remedy_for, status_for
from server.upstream.answer import Answer
from server.upstream.deployments import Deployment
from server.upstream.health import Health

log = logging.getLogger("pollux.upstream")

LONGEST_ERROR_BYTES = 256 * 1024
"""An error body beyond this is no error body; the rest is not read."""
PIECE_BYTES = 512 * 1024
"""A longer request, with an image in it, is sent piece by piece: others have their turn in between."""
_ACCOUNT_IS_OF_NO_USE = (401, 402, 429)
"""With a wrong key, or without quota, a deployment fails everybody; a 403 or 404 may be about this request alone."""
LONGEST_RETRY_AFTER_S = 60.0
"""An upstream that asks for more than this is tried again sooner, or elsewhere."""


class Call(NamedTuple):
    """One operation on a deployment."""

    method: str
    path: tuple[str, ...] = ()
    query: str = ""
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    stream: bool = False

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
        if deployment.base_url is None:
            text = f"The deployment of '{deployment.model_name}' has no address: set litellm_params.api_base."
            raise self._noted(deployment, call, UpstreamUnavailable(text))
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
                    raise self._noted(deployment, call, await _refusal(deployment, answer))
                begun = True
                if call.creates:
                    self.health.succeeded(deployment)
                yield answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._noted(deployment, call, _broken(deployment, error, begun=begun)) from error

    def _request(self, deployment: Deployment, call: Call) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(
            call.method,
            URL(deployment.url(*call.path, query=call.query), encoded=True),
            data=_pieces(call.body) if call.body and len(call.body) > PIECE_BYTES else call.body,
            headers=_headers(deployment, call),
            timeout=_client_timeout(self._timeouts, deployment.timeout_s, deployment.stream_timeout_s, call.stream),
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
        return asyncio.timeout(deployment.stream_timeout_s or self._timeouts.first_byte_s)


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


def _headers(deployment: Deployment, call: Call) -> dict[str, str]:
    accept = "text/event-stream" if call.stream else "application/json"
    made = {"Accept": accept, **(call.headers or {}), **deployment.headers}
    if call.body is not None:
        made["Content-Type"] = "application/json"
        made["Content-Length"] = str(len(call.body))
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


async def _refusal(deployment: Deployment, answer: Answer) -> PolluxError:
    raw = await answer.beginning(LONGEST_ERROR_BYTES)
    if 300 <= answer.status < 400:
        return UpstreamUnavailable("The provider answered with a redirect, which is not followed.")
    fields = reason_of(raw)
    if answer.status in (401, 403):
        # Its message quotes our credential, or names our account: the log has it, without what looks like a key.
        told = {"deployment": deployment.id[:16], "status": answer.status, "error": fields.get("message")}
        log.warning("a provider refused the credential of %s", deployment.model_name, extra=told)
        text = "The provider refused Pollux's credential for this deployment."
        fields = {"message": text, "code": "upstream_authentication"}
    return UpstreamRefusal(answer.status, fields, answer.headers.get("Retry-After"), _pause_asked_by(answer, fields))


def _pause_asked_by(answer: Answer, fields: Fields) -> float | None:
    """The seconds for which it wants to be left alone: by header, the exact one first, else in words."""
    exact = _number(answer.headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    stated = _seconds(answer.headers.get("Retry-After"))
    return pause_in(str(fields.get("message", ""))) if stated is None else stated


def refusal_in(raw: bytes) -> UpstreamRefusal | None:
    """What a JSON answer of status 200 refuses, where it holds an error and no response."""
    # As good as every answer names its kind: `"object": "response"`, or `"list"`.
    if b'"response"' in raw or b'"list"' in raw or len(raw) > LONGEST_ERROR_BYTES:
        return None
    try:
        body, _ = jsontext.mended(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or not (body.get("error") or body.get("errors") or body.get("object") == "error"):
        return None
    return failure_said(reason_in(body) or {})


def failure_said(fields: Fields) -> UpstreamRefusal:
    """The refusal that a provider put into words behind a status of 200."""
    return UpstreamRefusal(status_for(fields), fields, pause_s=pause_in(str(fields.get("message") or "")))


def remedy_of(error: PolluxError) -> Remedy:
    """What may help a request that met this error."""
    if isinstance(error, UpstreamRefusal):
        return remedy_for(error.status, {"code": error.code, "type": error.given_type})
    return Remedy.AGAIN if isinstance(error, UpstreamUnavailable | UpstreamTimeout) else Remedy.NOTHING


def is_passing(error: PolluxError) -> bool:
    """Whether another try may succeed, on the same deployment too."""
    return remedy_of(error) is Remedy.AGAIN


def retry_after_of(error: PolluxError) -> float | None:
    """The seconds that an upstream asked to be left alone, if it did: no more than `LONGEST_RETRY_AFTER_S`."""
    pause_s = error.pause_s if isinstance(error, UpstreamRefusal) else None
    return None if pause_s is None else min(max(0.0, pause_s), LONGEST_RETRY_AFTER_S)


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date."""
    if retry_after is None or (seconds := _number(retry_after)) is not None:
        return None if retry_after is None else seconds
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
