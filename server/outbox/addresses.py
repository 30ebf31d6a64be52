"""Where webhooks may go: to public addresses by https, unless the config allows others.

A URL comes from a client, so it must not lead into our own network. Names can be made to resolve to anything, and to
something else a moment later. So the last check is made where a connection is opened, on the very address that it is
opened to; a check of the URL alone, when it is given, only makes the refusal early and clear.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from server.outbox.names import AddressInfo, Names

LONGEST_URL = 2048
LOOKED_UP_WITHIN_S = 10.0

_NAMES = Names(32)
"""For what clients name. Webhooks have look-ups of their own, so that no client can take them all."""


class NotAllowed(OSError):
    """Nothing may be sent there. The message says why, without what a name resolves to."""


def is_public(address: str) -> bool:
    """Whether an IP address can be reached from everywhere, and is what it seems to be."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False  # such as 2130706433, which a C library takes for 127.0.0.1
    if isinstance(found, ipaddress.IPv6Address):
        teredo = found.teredo
        for within in (found.ipv4_mapped, found.sixtofour, teredo[1] if teredo else None, _translated(found)):
            if within is not None:
                return is_public(str(within))
        if found not in _GLOBAL_UNICAST:
            return False
    return found.is_global and not found.is_multicast


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that NAT64 leads to (RFC 6052)."""
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All that was given out for the Internet. Python calls others global too, such as `fec0::1` and `::127.0.0.1`."""


def check_url(url: str, *, private: bool) -> None:
    """Refuse a URL that no webhook may have, as far as it tells by itself. `private`: http and any address will do.

    Raises:
        NotAllowed
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise NotAllowed("it can't be read") from None
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise NotAllowed(f"it must consist of at most {LONGEST_URL} visible ASCII characters")
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise NotAllowed("it must begin with https://")
    if not host:
        raise NotAllowed("it names no host")
    if parts.username is not None or parts.password is not None:
        raise NotAllowed("it must hold no login")
    looks_numeric = ":" in host or "%" in host or host.replace(".", "").isdigit()
    if looks_numeric and not private and not is_public(host):
        raise NotAllowed("its address is not public")


async def check_host(url: str, *, private: bool) -> None:
    """Refuse a URL whose host has only addresses to which nothing may be sent, or none.

    Raises:
        NotAllowed
    """
    check_url(url, private=private)
    if private:
        return
    host = urlsplit(url).hostname
    try:
        async with asyncio.timeout(LOOKED_UP_WITHIN_S):
            found = await _NAMES.look_up(host or "", 443)
    except (OSError, UnicodeError):  # the latter for what can't be a name, such as `a..b`
        raise NotAllowed("its host has no address") from None
    if not any(is_public(str(sockaddr[0])) for *_, sockaddr in found):
        raise NotAllowed("its address is not public")


def guarded_socket(info: AddressInfo, *, private: bool) -> socket.socket:
    """The socket of a connection to this address.

    Raises:
        NotAllowed

    """
    family, kind, protocol, _, address = info
    if not private and not is_public(str(address[0])):
        raise NotAllowed("its address is not public")
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made
