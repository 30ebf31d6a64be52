"""Access: which credential the config and the environment give a deployment that has no key, as LiteLLM has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from server.config.sections import LiteLLMParams, setting
from server.upstream.credential import STATIC, Credential
from server.upstream.entra import SCOPE, ClientSecret, authority_of
from server.upstream.transport import Verify

AZURE = ("azure", "azure_ai")
_APPLICATION = ("tenant_id", "client_id", "client_secret")


class Access(NamedTuple):
    """How a deployment gets access, or why it can't."""

    credential: Credential = STATIC
    token: str | None = None
    """A token that never changes."""
    flaw: str | None = None
    """What is missing for a credential that the config has begun to describe."""


def access(params: LiteLLMParams, provider: str | None, environ: Mapping[str, str], verify: Verify) -> Access:
    """The access of a deployment for which no key is known."""
    return _azure(params, environ, verify) if provider in AZURE else Access()


def _azure(params: LiteLLMParams, environ: Mapping[str, str], verify: Verify) -> Access:
    """An application's tokens, else the token that is given (`azure/common_utils.py`, `get_azure_ad_token`)."""
    secret = params.client_secret.get_secret_value() if params.client_secret else None
    stated = {"tenant_id": params.tenant_id, "client_id": params.client_id, "client_secret": secret}
    found = {name: value or setting(environ, f"AZURE_{name.upper()}") for name, value in stated.items()}
    tenant_id, client_id, client_secret = (found[name] for name in _APPLICATION)
    if tenant_id and client_id and client_secret:
        scope = params.azure_scope or setting(environ, "AZURE_SCOPE") or SCOPE
        authority = authority_of(setting(environ, "AZURE_AUTHORITY_HOST"))
        return Access(ClientSecret(tenant_id, client_id, client_secret, scope, authority, verify))
    token = params.azure_ad_token.get_secret_value() if params.azure_ad_token else setting(environ, "AZURE_AD_TOKEN")
    if token and token.startswith("oidc/"):
        return Access(flaw="tokens of the form oidc/… are not exchanged here: set tenant_id, client_id, client_secret")
    if token:
        return Access(token=token)
    missing = [name for name in _APPLICATION if not found[name]]
    if any(stated.values()):
        names = " and ".join(f"litellm_params.{name} (or AZURE_{name.upper()})" for name in missing)
        return Access(flaw=f"its application can't ask for tokens: set {names}")
    return Access()
