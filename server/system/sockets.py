"""The sockets that a process listens on.

They are bound first, so that a taken address fails the start early.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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


_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER of Linux, which Python does not name."""
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # only SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone begins a connection:
        (0x06, 0, 0, 0),  # it is dropped,
        (0x06, 0, 0, 0xFFFF),  # and all else passes
    )
)


def turn_away(sockets: Iterable[socket.socket]) -> None:
    """Let no new connection begin, while those that have begun can still be accepted: call it shortly before closing.

    Otherwise a connection that is completed between the last accept and the close is reset, with the request that the
    client has sent on it. Whoever tries to connect meanwhile tries again after a second, and is then refused. Where the
    system can't do that, nothing happens.
    """
    program = ctypes.create_string_buffer(_NO_SYN)
    option = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
    for held in sockets:
        with suppress(OSError):
            held.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, option)
