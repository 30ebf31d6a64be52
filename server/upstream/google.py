"""Google's accounts, whose tokens the library google-auth obtains: of services, of users, and of other identities."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from server.config.sections import setting
from server.protocol import jsontext
from server.upstream.credential import Credential, Grant

_LARGEST_FILE_BYTES = 1024 * 1024
KINDS = ("service_account", "authorized_user", "external_account", "impersonated_service_account")
"""The types of accounts that can be described."""
_LIBRARY = "server.upstream.google_library"


class UnusableAccount(Exception):
    """The account can't be used. The message says why, without a secret, and what to write in the config."""


@dataclass(frozen=True, slots=True)
class GoogleAccount:
    """An account as its JSON file describes it, or the one that this machine has."""

    description: str = field(repr=False)
    """The content of the file; empty: whatever google-auth finds here."""
    told: str

    async def obtain(self, _http: aiohttp.ClientSession) -> Grant:
        library = import_module(_LIBRARY)
        grant: Grant = await asyncio.to_thread(library.granted, self.description)
        return grant


class Found(NamedTuple):
    """An account, and the project that it names."""

    account: Credential
    project: str | None


def google_account(stated: str | Mapping[str, Any] | None, environ: Mapping[str, str]) -> Found:
    """The account that the config states: a path, or the content of the file; else that of this machine.

    Raises:
        UnusableAccount

    """
    source = stated or setting(environ, "GOOGLE_APPLICATION_CREDENTIALS")
    project = setting(environ, "GOOGLE_CLOUD_PROJECT") or setting(environ, "GCLOUD_PROJECT")
    if source is None:
        return Found(GoogleAccount("", "Google's default account of this machine"), project)
    described = dict(source) if isinstance(source, Mapping) else _object(_content(source))
    kind = described.get("type")
    if kind not in KINDS:
        raise UnusableAccount(f"the type of its litellm_params.vertex_credentials is none of {', '.join(KINDS)}")
    name = described.get("client_email") or f"account of type {kind}"
    account = GoogleAccount(jsontext.dumps(described).decode(), f"Google, {name}")
    own = described.get("project_id") or described.get("quota_project_id")
    return Found(account, own if isinstance(own, str) else project)


def _content(source: str) -> bytes:
    if source.lstrip().startswith("{"):
        return source.encode()
    try:
        with Path(source).open("rb") as file:
            return file.read(_LARGEST_FILE_BYTES)
    except (OSError, ValueError) as error:
        raise UnusableAccount(
            "litellm_params.vertex_credentials (or VERTEXAI_CREDENTIALS, or GOOGLE_APPLICATION_CREDENTIALS) must be "
            f"the JSON of an account or the path of a file with it, which can't be read: {type(error).__name__}"
        ) from error


def _object(content: bytes) -> dict[str, Any]:
    try:
        described = jsontext.loads(content)
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise UnusableAccount("litellm_params.vertex_credentials (or the file that it names) is not a JSON object")
    return described
