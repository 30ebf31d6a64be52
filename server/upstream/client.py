"""Talking to a deployment over HTTP: one session a process, clear errors, retries while nothing has happened yet."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson
from yarl import URL

from server import __version__
from server.errors import PolluxError, UpstreamRefusal, UpstreamTimeout, UpstreamUnavailable
from server.upstream.deployments import Deployment

log = logging.getLogger("pollux.upstream")

LONGEST_ERROR_BYTES = 256 * 1024
"""An error body beyond this is no error body; the rest is not read."""
PIECE_BYTES = 512 * 1024
"""A longer request, with an image in it, is sent piece by piece: others have their turn in between."""
LONGEST_ANSWER_BYTES = 256 * 1024 * 1024
"""A response with many generated images has some ten megabytes; beyond this an upstream has lost its mind."""
LONGEST_RETRY_AFTER_S = 60.0
"""An upstream that asks for more than this is tried again sooner, or elsewhere."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 8.0


@dataclass(frozen=True, slots=True)
class Call:
    """One operation on a deployment."""

    method: str
    path: tuple[str, ...] = ()
    query: str = ""
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    stream: bool = False


class Upstream:
    """The connection to all deployments."""

    def __init__(self, session: aiohttp.ClientSession, *, connect_timeout_s: float, stream_timeout_s: float) -> None:
        self._session = session
        self._connect_timeout_s = connect_timeout_s
        self._stream_timeout_s = stream_timeout_s

    @asynccontextmanager
    async def open(self, deployment: Deployment, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one call, of status 2xx. Leaving the block early closes the socket.

        Raises:
            UpstreamRefusal: any other status
            UpstreamUnavailable, UpstreamTimeout: also while the body is read, inside the block

        """
        if deployment.base_url is None:
            raise UpstreamUnavailable(
                f"The deployment of '{deployment.model_name}' has no address: set litellm_params.api_base."
            )
        begun = False
        try:
            async with self._session.request(
                call.method,
                URL(deployment.url(*call.path, query=call.query), encoded=True),
                data=_pieces(call.body) if call.body and len(call.body) > PIECE_BYTES else call.body,
                headers=_headers(deployment, call),
                timeout=self._timeout(deployment, stream=call.stream),
                # Following one would hand the credential to whatever it names.
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:
                    raise await _refusal(response)
                begun = True
                yield response
        except TimeoutError as error:
            raise UpstreamTimeout("The provider did not answer in time.") from error
        except (aiohttp.ClientError, OSError) as error:
            log.info("upstream of %s: %s: %s", deployment.model_name, type(error).__name__, error)
            text = "The provider could not be reached, or broke the connection."
            raise UpstreamUnavailable(text, begun=begun) from error

    def _timeout(self, deployment: Deployment, *, stream: bool) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None if stream else deployment.timeout_s,
            sock_connect=self._connect_timeout_s,
            sock_read=self._stream_timeout_s if stream else None,
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


async def read_body(response: aiohttp.ClientResponse, limit_bytes: int = LONGEST_ANSWER_BYTES) -> bytes:
    """A whole body, of bounded size.

    Raises:
        UpstreamUnavailable: it is longer
        aiohttp.ClientError, TimeoutError
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise UpstreamUnavailable("The provider's answer is too long.", begun=True)
    return bytes(body)


async def _refusal(response: aiohttp.ClientResponse) -> PolluxError:
    try:
        raw = await read_body(response, LONGEST_ERROR_BYTES)
    except UpstreamUnavailable:
        raw = b""  # whatever it is, it is no error in OpenAI's shape
    if 300 <= response.status < 400:
        return UpstreamUnavailable("The provider answered with a redirect, which is not followed.")
    if response.status in (401, 403):
        # Its message quotes our credential, or names our account.
        text = "The provider refused Pollux's credential for this deployment."
        error: dict[str, Any] = {"message": text, "code": "upstream_authentication"}
    else:
        error = _error_fields(raw) or {}
    return UpstreamRefusal(response.status, error, response.headers.get("Retry-After"))


def _error_fields(raw: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    found = body.get("error") if isinstance(body, dict) else None
    if isinstance(found, str):
        return {"message": found}
    return found if isinstance(found, dict) else None


def is_passing(error: PolluxError) -> bool:
    """Whether another try may succeed."""
    return isinstance(error, UpstreamUnavailable | UpstreamTimeout) or (
        isinstance(error, UpstreamRefusal) and (error.status in (408, 409, 429) or error.status >= 500)
    )


class Tries:
    """The tries of one request: on which deployment next, and after which pause.

    Exponential backoff with full jitter; an upstream's `retry-after` overrules it; another deployment than the
    last one is preferred.
    """

    def __init__(self, deployments: Sequence[Deployment], num_retries: int) -> None:
        first = random.randrange(len(deployments))  # noqa: S311
        self._order = [*deployments[first:], *deployments[:first]]
        self._left = num_retries
        self._made = 0

    @property
    def deployment(self) -> Deployment:
        return self._order[self._made % len(self._order)]

    async def again(self, error: PolluxError, worthwhile: Callable[[PolluxError], bool] = is_passing) -> None:
        """Wait until the next try, or raise the error where there is none."""
        if self._left <= 0 or not worthwhile(error):
            raise error
        asked_s = _seconds(error.retry_after_s) if len(self._order) == 1 else None
        ceiling_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**self._made)
        self._left -= 1
        self._made += 1
        await asyncio.sleep(asked_s if asked_s is not None else random.uniform(0, ceiling_s))  # noqa: S311


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            when = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = when.timestamp() - time.time()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # noqa: PLR0124
