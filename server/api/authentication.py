"""Who asks, and whether they may: what stands in the table of routes is held to here."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from server.api.context import PRINCIPAL, context_of
from server.api.operation import Auth, requested_of
from server.errors import MasterOnly, Unauthorized
from server.keyring import is_loopback


def authenticate(request: web.Request) -> None:
    """Let pass whom the operation is for, and note the principal of their key on the request.

    What no route fits needs a key too, so that only who has one is told what there is.

    Raises:
        Unauthorized, MasterOnly

    """
    auth = requested_of(request).auth
    if auth is Auth.NONE:
        return
    if auth is Auth.SCRAPER:
        _authenticate_scraper(request)
        return
    request[PRINCIPAL] = principal = context_of(request).keyring.authenticate(request.headers)
    if auth is Auth.MASTER and not principal.is_master:
        raise MasterOnly("Only the master key may ask for this.")


def _authenticate_scraper(request: web.Request) -> None:
    context = context_of(request)
    context.keyring.authenticate_scraper(request.headers)
    # A process that only runs jobs may listen everywhere although there is no key.
    if context.keyring.empty and not context.config.pollux.allow_unauthenticated and not _is_local(request):
        raise Unauthorized("There is no key, so only this machine sees the metrics: set pollux.metrics_key.")


def _is_local(request: web.Request) -> bool:
    address: Any = None if request.transport is None else request.transport.get_extra_info("sockname")
    return bool(address) and is_loopback(address[0])
