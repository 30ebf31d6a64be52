"""What botocore does for us: it finds keys, and signs. Only a deployment that needs it imports this module."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError
from botocore.session import Session

from server.upstream.amazon import AmazonAccount
from server.upstream.credential import OBTAINED_WITHIN_S, Grant, NotGranted, Outgoing

SERVICE = "bedrock"
FOUND_FOR_S = 600.0
"""How long keys are used that botocore found. It finds none that end within ten minutes, if it can help it."""
LARGE_BYTES = 512 * 1024
"""A body that is hashed in a thread, so that other requests are served meanwhile."""
_SESSION_NAME = "pollux"


@dataclass(frozen=True, slots=True)
class Signature:
    """A grant by keys, which sign each request (Signature Version 4)."""

    keys: Any = field(repr=False)
    region: str
    lifetime_s: float | None

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        if len(outgoing.body or b"") > LARGE_BYTES:
            return await asyncio.to_thread(self._signed, outgoing)
        return self._signed(outgoing)

    def _signed(self, outgoing: Outgoing) -> Mapping[str, str]:
        told = {} if outgoing.body is None else {"Content-Type": "application/json"}
        request = AWSRequest(outgoing.method, outgoing.url, told, outgoing.body or b"")
        SigV4Auth(self.keys, SERVICE, self.region).add_auth(request)
        return {name: value for name, value in request.headers.items() if name not in told}


def granted(account: AmazonAccount) -> Grant:
    """The keys of an account, ready to sign. Blocks where they have to be fetched.

    Raises:
        NotGranted

    """
    try:
        if account.role:
            return _assumed(account)
        if account.secret_access_key:
            return Signature(_stated(account), account.region, None)
        found = Session(profile=account.profile).get_credentials()
        if found is None:
            raise NotGranted(
                "botocore finds no keys here: set litellm_params.aws_access_key_id and aws_secret_access_key, "
                "aws_profile_name, or api_key (AWS_BEARER_TOKEN_BEDROCK)"
            )
        return Signature(found.get_frozen_credentials(), account.region, FOUND_FOR_S)
    except (BotoCoreError, ClientError) as error:
        # A command that prints keys may have printed them as its error.
        untold = isinstance(error, CredentialRetrievalError)
        raise NotGranted(type(error).__name__ if untold else str(error)) from error


def _stated(account: AmazonAccount) -> Credentials:
    return Credentials(account.access_key_id, account.secret_access_key, account.session_token)


def _assumed(account: AmazonAccount) -> Signature:
    """The keys of a role, which the account's own keys may assume."""
    patience = Config(
        connect_timeout=OBTAINED_WITHIN_S / 3, read_timeout=OBTAINED_WITHIN_S / 3, retries={"total_max_attempts": 1}
    )
    client = Session().create_client(
        "sts",
        region_name=account.region,
        endpoint_url=account.sts_endpoint,
        aws_access_key_id=account.access_key_id,
        aws_secret_access_key=account.secret_access_key,
        aws_session_token=account.session_token,
        config=patience,
    )
    named = {"RoleArn": account.role, "RoleSessionName": account.session_name or _SESSION_NAME}
    if account.external_id:
        named["ExternalId"] = account.external_id
    try:
        got = client.assume_role(**named)["Credentials"]
    finally:
        client.close()
    keys = Credentials(got["AccessKeyId"], got["SecretAccessKey"], got["SessionToken"])
    return Signature(keys, account.region, (got["Expiration"] - datetime.now(UTC)).total_seconds())
