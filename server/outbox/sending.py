"""Sending one event to one endpoint, by the Standard Webhooks scheme (standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import aiohttp
from standardwebhooks import Webhook

from server import __version__
from server.outbox.addresses import NotAllowed, check_url, guarded_socket
from server.outbox.endpoints import Endpoint
from server.outbox.names import AddressInfo, Resolver

TIMEOUT_S = 10.0
"""For the whole of it: an endpoint should take the event and work on it later."""
MOST_CONNECTIONS = 100
MOST_LOOKUPS = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    code: int = 0
    """The HTTP status; 0 where there was none."""
    reason: str = ""
    """Why it was no success; empty if it was one."""
    latency_s: float = 0.0

    @property
    def is_success(self) -> bool:
        return not self.reason


def signed_headers(secrets: Sequence[str], event_id: str, body: str, at: datetime) -> dict[str, str]:
    """The headers of one try. Without a secret there is no signature."""
    made = {"webhook-id": event_id, "webhook-timestamp": str(int(at.timestamp()))}
    if secrets:
        made["webhook-signature"] = " ".join(Webhook(one).sign(event_id, at, body) for one in secrets)
    return made


class Sender:
    """Sends, to where it may be sent."""

    def __init__(self, *, private: bool = False) -> None:
        self.private = private
        """Whether addresses will do that are not public, and http."""
        # No proxy and no `.netrc`: what the environment says is for upstreams.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MOST_CONNECTIONS,
                resolver=Resolver(MOST_LOOKUPS),
                socket_factory=self._socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"User-Agent": f"pollux/{__version__}", "Content-Type": "application/json"},
        )

    def _socket(self, info: AddressInfo) -> socket.socket:
        return guarded_socket(info, private=self.private)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(
        self, endpoint: Endpoint, event_id: str, body: str, context: Mapping[str, str] | None = None
    ) -> Answer:
        """Send it once, with headers for the context of a trace.

        A redirect is a failure, and never followed: it could lead anywhere.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        code, reason = 0, ""
        try:
            check_url(endpoint.url, private=self.private)
            headers = {**(context or {}), **signed_headers(endpoint.secrets, event_id, body, datetime.now(UTC))}
            async with self._session.post(
                endpoint.url, data=body.encode(), headers=headers, allow_redirects=False
            ) as answer:
                code = answer.status
                if not 200 <= code < 300:
                    reason = f"HTTP {code}"
        except NotAllowed as error:
            reason = f"not allowed: {error}"
        except TimeoutError:
            reason = f"no answer in {TIMEOUT_S:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = _said(error)
        return Answer(code, reason, clock() - began)


def _said(error: Exception) -> str:
    """In a few words, and without addresses that a client could learn our network by."""
    cause: BaseException = error
    while (inner := cause.__cause__ or getattr(cause, "os_error", None)) is not None and inner is not cause:
        cause = inner
        if isinstance(cause, NotAllowed):
            return f"not allowed: {cause}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "its certificate is not valid, or it speaks no TLS"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "it can't be connected to"
    return f"the connection broke ({type(error).__name__})"
