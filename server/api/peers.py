"""Peers: which address a client has, where proxies that are trusted may stand in between."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Place = Any
"""The other end of a socket, as a transport gives it: (address, port, …) of a TCP connection, else anything."""
NETWORK_OF_ONE = 64
"""A client of IPv6 has as many addresses as it likes in a network of this many bits, which is counted as one."""


class Peers:
    """The networks of the proxies that are trusted. What they say in `X-Forwarded-For` is believed."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        """`trusted`: networks such as 10.0.0.0/8, or addresses; they were checked before."""
        self._trusted = [ipaddress.ip_network(text) for text in trusted]

    def counted(self, place: Place) -> str | None:
        """The address that a connection from there counts for; None for a trusted proxy, which has many clients."""
        address = _of_place(place)
        return None if address is None or self._trusts(address) else _counted(address)

    def behind(self, place: Place, forwarded: Sequence[str]) -> str | None:
        """The address of the client behind a trusted proxy; None if it is not behind one, or not known.

        `forwarded` are the values of `X-Forwarded-For`. Each proxy appends whom it has heard from, so the list is read
        from its end, and the first address that is no trusted proxy is the client's. What stands before it is only
        what the client says of itself.
        """
        address = _of_place(place)
        if address is None or not self._trusts(address):
            return None
        for text in reversed(",".join(forwarded).split(",")):
            found = _read(text)
            if found is None:
                return None
            if not self._trusts(found):
                return _counted(found)
        return None

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _of_place(place: Place) -> Address | None:
    return _read(place[0]) if isinstance(place, tuple) and place and isinstance(place[0], str) else None


def _read(text: str) -> Address | None:
    """An address as proxies write it: some add the port, and brackets around one of IPv6."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _counted(address: Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, NETWORK_OF_ONE), strict=False))
