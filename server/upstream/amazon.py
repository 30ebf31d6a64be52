"""Amazon's accounts, which sign each request: by keys of the config, of a role, or of wherever botocore finds some."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

import aiohttp
from pydantic import SecretStr

from server.config.sections import LiteLLMParams, setting
from server.upstream.credential import Grant

_LIBRARY = "server.upstream.amazon_library"


@dataclass(frozen=True, slots=True)
class AmazonAccount:
    """Where the keys are found that sign requests for a region."""

    region: str
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    role: str | None = None
    """The role to assume with these keys."""
    session_name: str | None = None
    external_id: str | None = field(default=None, repr=False)
    sts_endpoint: str | None = None

    @property
    def told(self) -> str:
        if self.role:
            return f"Amazon, role {self.role}"
        if self.profile:
            return f"Amazon, profile {self.profile}"
        return "Amazon, keys of the config" if self.secret_access_key else "Amazon, whatever botocore finds here"

    async def obtain(self, _http: aiohttp.ClientSession) -> Grant:
        library = import_module(_LIBRARY)
        grant: Grant = await asyncio.to_thread(library.granted, self)
        return grant


def amazon_account(params: LiteLLMParams, region: str, environ: Mapping[str, str]) -> AmazonAccount:
    """The account of a deployment, in LiteLLM's order (`bedrock/base_aws_llm.py`): a role, a profile, keys."""

    def stated(value: SecretStr | str | None, variable: str) -> str | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return text or setting(environ, variable)

    access_key_id = stated(params.aws_access_key_id, "AWS_ACCESS_KEY_ID")
    secret_access_key = stated(params.aws_secret_access_key, "AWS_SECRET_ACCESS_KEY")
    keys: dict[str, str | None] = {}
    if access_key_id and secret_access_key:
        token = stated(params.aws_session_token, "AWS_SESSION_TOKEN")
        # A token of the environment belongs to the keys of the environment.
        token = token if params.aws_session_token or not params.aws_access_key_id else None
        keys = {"access_key_id": access_key_id, "secret_access_key": secret_access_key, "session_token": token}
    role = stated(params.aws_role_name, "AWS_ROLE_NAME")
    if role and not (role == setting(environ, "AWS_ROLE_ARN") and not keys):
        return AmazonAccount(
            region,
            **keys,
            role=role,
            session_name=stated(params.aws_session_name, "AWS_SESSION_NAME"),
            external_id=stated(params.aws_external_id, "AWS_EXTERNAL_ID"),
            sts_endpoint=stated(params.aws_sts_endpoint, "AWS_STS_ENDPOINT"),
        )
    if profile := stated(params.aws_profile_name, "AWS_PROFILE_NAME"):
        return AmazonAccount(region, profile=profile)
    return AmazonAccount(region, **keys)
