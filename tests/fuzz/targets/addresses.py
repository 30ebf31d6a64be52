"""URLs of webhooks: one is accepted, or refused with a reason, and none that is accepted leads into our own network."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from server.outbox.addresses import NotAllowed, check_url, is_public
from server.protocol.webhook_secrets import is_secret
from tests.fuzz.material import Material

_PIECES = (
    *("https://", "http://", "HTTPS:", "//", "/", "@", ":", "[", "]", "%", "%25", "?", "#", "\\", ".", ".."),
    *("user:pw@",),
    *("127.0.0.1", "10.0.0.1", "169.254.169.254", "0x7f.1", "2130706433", "017700000001", "localhost", "hook.example"),
    *("::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%eth0", "2606:4700::1", "8.8.8.8", "443"),
    *("1" * 300, "\u2100", "\uff0e", "ⅷ", "\t", "\n", " ", "\x00", "whsec_", "AAAA", "=", "99999", "-1"),
)


def fuzz(data: bytes) -> None:
    material = Material(data)
    text = "".join(material.pick(_PIECES) if material.number(8) else material.text() for _ in material.times(9))
    is_secret(text)
    _is_judged(text)
    for private in (False, True):
        try:
            check_url(text, private=private)
        except NotAllowed as error:
            assert str(error)
            continue
        host = urlsplit(text).hostname
        assert host
        assert private or not _is_internal(host), host


def _is_judged(text: str) -> None:
    assert not (is_public(text) and _is_internal(text))


def _is_internal(host: str) -> bool:
    """Whether the text is an address of a network of one's own, in the forms that Python knows."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return found.is_private or found.is_loopback or found.is_link_local or found.is_unspecified
