"""Where webhooks may go: decided on the very address that a connection is opened to."""

from __future__ import annotations

import socket

import pytest

from server.outbox.addresses import NotAllowed, check_url, guarded_socket, is_public


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2130706433", "127.1", "0x7f.1"),
        *("2001:0:4136:e378:8000:63bf:80ff:fffe", "localhost", ""),
        *("fec0::1", "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b:1::7f00:1", "5f00::1"),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


def test_the_last_check_is_where_a_socket_is_made() -> None:
    for address in ("127.0.0.1", "2130706433"):
        with pytest.raises(NotAllowed):
            guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 443)), private=False)
    for private, address in ((False, "93.184.216.34"), (True, "127.0.0.1")):
        made = guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 443)), private=private)
        assert not made.getblocking()
        made.close()


@pytest.mark.parametrize(
    "url", ["http://[", "https://example.com:port/", "https:///x", "https://a b/", "https://ex\u00e4mple.com/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(NotAllowed):
        check_url(url, private=True)


@pytest.mark.parametrize("url", ["https://169.254.169.254%25/", "https://127.0.0.1%00/", "https://[fe80::1%25eth0]/"])
def test_no_escape_hides_an_address(url: str) -> None:
    with pytest.raises(NotAllowed, match="its address is not public"):
        check_url(url, private=False)
