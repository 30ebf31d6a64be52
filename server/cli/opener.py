"""How commands connect: soon or not at all, past proxies where the server is here, and without following redirects."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

CONNECT_S = 10.0


class _NoRedirects(HTTPRedirectHandler):
    """A key must not follow a redirect to another server."""

    def redirect_request(self, *_args: Any) -> None:
        return None


class _Connection(HTTPConnection):
    """Connects soon or not at all, however long an answer may take."""

    def connect(self) -> None:
        answer_s, self.timeout = self.timeout, min(CONNECT_S, self.timeout or CONNECT_S)
        super().connect()
        self.sock.settimeout(answer_s)


class _TlsConnection(HTTPSConnection):
    def connect(self) -> None:
        answer_s, self.timeout = self.timeout, min(CONNECT_S, self.timeout or CONNECT_S)
        super().connect()
        self.sock.settimeout(answer_s)


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(HTTPSHandler):
    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_TlsConnection, req)


def new_opener(url: str) -> OpenerDirector:
    """What opens connections to this server."""
    # Proxies of the environment are heeded, but none is asked for this machine.
    proxies = ProxyHandler({}) if _is_here(urlsplit(url).hostname or "") else ProxyHandler()
    return build_opener(proxies, _NoRedirects, _Http, _Https)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
