"""Encryption of connections: a door before each of them, in which TLS is agreed upon.

The event loop's own TLS tells nobody of a connection before its handshake is over, so that a crowd which never ends
its handshakes would take all open files, uncounted. Therefore the door counts it when it comes.
"""

from __future__ import annotations

import asyncio
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any, Protocol

from server.api.peers import Place
from server.system.tls import Certificates

GOODBYE_WITHIN_S = 5.0
"""How long a client may take to answer that the connection is closed."""


class Encryption:
    """How connections are encrypted."""

    def __init__(self, certificates: Certificates, handshake_s: float) -> None:
        """`handshake_s`: a client that has not agreed by then is disconnected."""
        self.certificates = certificates
        self.handshake_s = handshake_s

    @property
    def asks_for_certificates(self) -> bool:
        return self.certificates.config.client_ca_file is not None


class Enter(Protocol):
    """Counts a connection; may close its transport."""

    def __call__(self, connection: Any, transport: asyncio.Transport, /) -> None: ...


class Encrypted(SSLProtocol):
    """The door before one connection, for asyncio and uvloop alike; `tests/api/test_tls.py` holds it."""

    def __init__(
        self, connection: asyncio.Protocol, encryption: Encryption, enter: Enter, leave: Callable[[Place], None]
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            connection,
            encryption.certificates.context,
            None,  # type: ignore[arg-type] # nobody waits for the handshake, which typeshed does not know
            server_side=True,
            ssl_handshake_timeout=encryption.handshake_s,  # type: ignore[arg-type] # it need not be whole
            ssl_shutdown_timeout=GOODBYE_WITHIN_S,
        )
        self._connection = connection
        self._enter, self._leave = enter, leave
        self._place: Place = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._place = transport.get_extra_info("peername")
        super().connection_made(transport)
        self._enter(self._connection, transport)  # type: ignore[arg-type] # a socket's transport has both directions

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._leave(self._place)


def shows_certificate(transport: asyncio.BaseTransport | None) -> bool:
    """Whether the client has shown a certificate; an invalid one ends the handshake."""
    return transport is not None and bool(transport.get_extra_info("peercert"))
