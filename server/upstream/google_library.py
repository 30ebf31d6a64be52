"""What google-auth does for us. Only a deployment that needs it imports this module, see `google`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import google.auth
from google.auth import aws, identity_pool, impersonated_credentials, pluggable
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2 import credentials, service_account

from server.protocol import jsontext
from server.upstream.credential import OBTAINED_WITHIN_S, Bearer, NotGranted

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_LONGEST_LIFETIME_S = 3600.0


def granted(description: str) -> Bearer:
    """A token of the account. Blocks for as long as Google takes.

    Raises:
        NotGranted

    """
    # Without a limit of its own, each request may take two minutes.
    request = partial(Request(), timeout=OBTAINED_WITHIN_S / 2)
    try:
        account = _described(jsontext.loads(description.encode())) if description else _found_here()
        account.refresh(request)
    except (GoogleAuthError, ValueError) as error:
        raise NotGranted(_reason(error)) from error
    if not account.token:
        raise NotGranted("Google's answer holds no token")
    if account.expiry is None:
        return Bearer(account.token, _LONGEST_LIFETIME_S)
    return Bearer(account.token, (account.expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())


def _found_here() -> Any:
    account, _ = google.auth.default(scopes=_SCOPES)
    return account


def _described(account: dict[str, Any]) -> Any:
    """The account of a description. (google-auth has a function for all kinds, and deprecates it.)"""
    kind = str(account.get("type"))
    return (_external(account) if kind == "external_account" else _MAKERS[kind])(account, scopes=_SCOPES)


_MAKERS: Mapping[str, Callable[..., Any]] = {
    "service_account": service_account.Credentials.from_service_account_info,
    "authorized_user": credentials.Credentials.from_authorized_user_info,
    "impersonated_service_account": impersonated_credentials.Credentials.from_impersonated_service_account_info,
}


def _external(account: dict[str, Any]) -> Callable[..., Any]:
    """The maker of an identity of another platform."""
    source = account.get("credential_source") or {}
    if str(source.get("environment_id", "")).startswith("aws"):
        return aws.Credentials.from_info
    return pluggable.Credentials.from_info if "executable" in source else identity_pool.Credentials.from_info


def _reason(error: Exception) -> str:
    """The library's own sentence. What else an error carries may be a whole answer."""
    said = error.args[0] if error.args else ""
    return said if isinstance(error, GoogleAuthError) and isinstance(said, str) and said else type(error).__name__
