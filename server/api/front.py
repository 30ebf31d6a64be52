"""The front of a process: the sockets that it listens on, and the connections of its clients. Closed in an order that
loses no request.

A load balancer can't repeat a POST that it has sent. So no connection on which a request may be under way is ever
closed before that request is answered, and what the kernel has accepted for the process is served too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.api.connection import HttpRunner
from server.api.deadlines import LOOK_EVERY_S, Deadlines, Sweep
from server.api.encryption import Encryption
from server.api.peers import Peers
from server.api.room import Room
from server.config import Config
from server.system.sockets import turn_away
from server.system.tls import Certificates

HANDSHAKES_END_WITHIN_S = 0.05
"""How long connections that have begun may take to be complete, and to be accepted: some round trips."""
FIRST_REQUEST_WITHIN_S = 1.0
"""How long a new connection may take to send its first request, once nothing listens any more."""
ASK_EVERY_S = 0.02


SPARED_S = 5.0
"""Where connections are scarce, those that have waited longer than this for another request are closed: not those on
which a load balancer may be sending one at this moment."""
RENEWALS_SEEN_WITHIN_S = 60.0
"""How often the files of the certificate are looked at: who renews them need not tell Pollux."""


@dataclass(frozen=True)
class Terms:
    """On what terms clients may connect. The same hold while the process starts and afterwards."""

    room: Room
    deadlines: Deadlines
    keepalive_s: float
    encryption: Encryption | None

    @classmethod
    def of(cls, config: Config, most_clients: int) -> Terms:
        """What the config says, for at most so many clients.

        Raises:
            ConfigError: the certificate can't be used

        """
        ours = config.pollux
        certificates = Certificates.of(config.tls())
        return cls(
            room=Room(
                min(most_clients, ours.max_connections or most_clients),
                ours.max_connections_per_address,
                Peers(ours.trusted_proxies),
            ),
            deadlines=Deadlines(ours.header_timeout_s, ours.body_timeout_s),
            keepalive_s=ours.keepalive_timeout_s,
            encryption=None if certificates is None else Encryption(certificates, ours.header_timeout_s),
        )


class Front:
    """What one process serves on."""

    def __init__(self, runner: HttpRunner, sockets: Sequence[socket.socket], terms: Terms) -> None:
        self._runner = runner
        self._sockets = sockets
        self._terms = terms

    def reload_certificates(self, *, only_if_replaced: bool = False) -> None:
        """Read the files of the certificate again, for new connections, if there is TLS. May be called in a thread."""
        if self._terms.encryption is not None:
            self._terms.encryption.certificates.reload(only_if_replaced=only_if_replaced)

    async def watch(self) -> None:
        """Keep clients to their deadlines, make room where it is scarce, and notice renewed certificates."""
        sweep = Sweep(lambda: self._runner.connections, self._terms.deadlines)
        loop = asyncio.get_running_loop()
        seen = loop.time()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            sweep.look(loop.time())
            if self._terms.room.scarce:
                self._runner.close_idle(SPARED_S)
            if loop.time() - seen >= RENEWALS_SEEN_WITHIN_S:
                seen = loop.time()
                await asyncio.to_thread(self.reload_certificates, only_if_replaced=True)

    async def close(self, hurry: asyncio.Event) -> None:
        """Take no new connection, and close those that wait for another request.

        Balancers that try to connect are refused, and go elsewhere. Returns when the connections that were made last
        have sent their requests.
        """
        turn_away(self._sockets)
        await asyncio.sleep(HANDSHAKES_END_WITHIN_S)
        for site in self._runner.sites:
            await site.stop()
        for held in self._sockets:
            held.close()
        await asyncio.sleep(0)  # so that requests which have arrived are taken up
        self._runner.close_idle()
        await self._until(lambda: not self._runner.unused, FIRST_REQUEST_WITHIN_S, hurry)

    async def end_requests(self, within_s: float, hurry: asyncio.Event) -> None:
        """Wait until all requests that are under way are answered, for so long or until `hurry`."""
        await self._until(lambda: not self._runner.busy, within_s, hurry)

    def abort(self) -> None:
        """Break the connections of all requests that are still under way: clients then know of it."""
        for connection in self._runner.busy:
            connection.abort()

    async def _until(self, done: Callable[[], bool], within_s: float, hurry: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        # Looking again costs less than connections that tell, which each request would pay for.
        while not done() and not hurry.is_set() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(ASK_EVERY_S)
