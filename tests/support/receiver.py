"""A receiver of webhooks, as steerable as a bad one."""

from __future__ import annotations

import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.waiting import wait_until

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


IMPATIENT = """
from server.outbox import webhooks
from storage import Pausing

webhooks.FIRST_PAUSE_S, webhooks.LONGEST_PAUSE_S = 0.05, 0.3
webhooks.PAUSING = Pausing(webhooks.PAUSING.failures, for_s=0.2)
webhooks.LOOK_EVERY_S = 0.1
webhooks.CLAIM_S = 1.5
webhooks.LAST_TRIES_S = 0.2
"""
"""What a process of Pollux runs first, so that an outage of its receivers fits into a test."""


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float
    """When, by the clock of the wall, which its timestamp is compared with."""

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(self.body)
        return event


async def takes_it(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


def answers(status: int, **headers: str) -> Behaviour:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


@dataclass
class Receiver:
    url: str = ""
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    """By path; everything else is taken."""
    received: list[Received] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, headers, await request.read(), time.time()))
        return await self.behaviour.get(request.path, takes_it)(request)

    def events(self, path: str | None = None) -> list[dict[str, Any]]:
        return [one.event for one in self.received if path in (None, one.path)]

    def count(self, path: str) -> int:
        return Counter(one.path for one in self.received)[path]

    async def receive(self, count: int, path: str = "/", timeout_s: float = 10) -> list[dict[str, Any]]:
        """All that came to a path, once there are so many."""
        await wait_until(lambda: self.count(path) >= count, timeout_s=timeout_s, what=f"{count} webhooks at {path}")
        return self.events(path)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A certificate that nobody has reason to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    file = folder / "self-signed.pem"
    file.write_bytes(
        made.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


@asynccontextmanager
async def running_receiver(
    tls: ssl.SSLContext | None = None, on: socket.socket | None = None
) -> AsyncIterator[Receiver]:
    """On a free port, or on a socket that is bound already."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.SockSite(runner, on) if on else web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    receiver.url = site.name
    try:
        yield receiver
    finally:
        await runner.cleanup()
