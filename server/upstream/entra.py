"""Microsoft Entra ID, which grants tokens for Azure to an application that shows its secret.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

from server.protocol import jsontext
from server.upstream.credential import Bearer, Grant, NotGranted
from server.upstream.transport import Verify, proxy_for, tls_of

AUTHORITY = "https://login.microsoftonline.com"
SCOPE = "https://cognitiveservices.azure.com/.default"
_LONGEST_ANSWER_BYTES = 64 * 1024
_SHORTEST_LIFETIME_S = 1.0


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """An application of a tenant, and its secret."""

    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = SCOPE
    authority: str = AUTHORITY
    verify: Verify = True

    @property
    def told(self) -> str:
        return f"Microsoft Entra ID, client {self.client_id} of tenant {self.tenant_id}"

    async def obtain(self, http: aiohttp.ClientSession) -> Grant:
        url = f"{self.authority}/{quote(self.tenant_id, safe='')}/oauth2/v2.0/token"
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": self.scope,
        }
        # Following a redirect would send the secret to whichever host it names.
        async with http.post(
            url, data=form, proxy=proxy_for(url), ssl=tls_of(self.verify), allow_redirects=False
        ) as response:
            said = await _object(response)
            if response.status != 200:
                raise NotGranted(f"status {response.status}: {_why(said)}")
        token, lifetime_s = said.get("access_token"), _seconds(said.get("expires_in"))
        if not isinstance(token, str) or not token or lifetime_s < _SHORTEST_LIFETIME_S:
            raise NotGranted("the answer holds no token, or one that has ended")
        return Bearer(token, lifetime_s)


def authority_of(host: str | None) -> str:
    """The authority as AZURE_AUTHORITY_HOST names it, which azure-identity reads too: a host, or its URL."""
    stated = (host or AUTHORITY).rstrip("/")
    return stated if "://" in stated else f"https://{stated}"


async def _object(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The JSON object that was answered; an empty one if it was anything else."""
    raw = bytearray()
    while len(raw) <= _LONGEST_ANSWER_BYTES and (piece := await response.content.readany()):
        raw += piece
    try:
        said = jsontext.loads(bytes(raw))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _why(said: dict[str, Any]) -> str:
    """The first line of the error; the others are ids of the request."""
    description = str(said.get("error_description") or "").splitlines()[:1]
    return " ".join([str(said.get("error") or "no reason was given"), *description])


def _seconds(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
