"""Binds the sockets that a process listens on. This is done first, so that a taken address fails the start early."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def bound(host: str, port: int, *, share: bool = False) -> Iterator[list[socket.socket]]:
    """Bind a socket to each address of a host, without listening yet. Leaving the block closes them.

    All have the same port; port 0 chooses a free one. With `share`, other processes may bind it too (SO_REUSEPORT).

    Raises:
        OSError: the address is taken, or not ours; the message names it

    """
    with ExitStack() as stack:
        sockets = []
        for family, *_, address in socket.getaddrinfo(host or None, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE):
            held = stack.enter_context(bind(family, (address[0], port, *address[2:]), share=share))
            port = held.getsockname()[1]
            sockets.append(held)
        yield sockets


def bind(family: int, address: tuple[Any, ...], *, share: bool) -> socket.socket:
    """One socket on one address.

    Raises:
        OSError: the address is taken, or not ours; the message names it

    """
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        held.setblocking(False)
        held.bind(address)
    except OSError as error:
        held.close()
        raise OSError(error.errno, f"can't listen on {address[0]} port {address[1]}: {error.strerror}") from error
    return held
