"""Google's Vertex AI: Claude by its own API, Mistral and AI21 by theirs, all others by the OpenAI-compatible endpoint.

Names, variables, hosts and paths are LiteLLM's (`vertex_ai/vertex_llm_base.py`, `vertex_ai/common_utils.py`).
https://cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from server.config.sections import ModelEntry, setting
from server.protocol.dialects.manners import Dialect, Manners
from server.upstream.catalog import PROVIDERS
from server.upstream.credential import STATIC
from server.upstream.google import UnusableAccount, google_account
from server.upstream.optional import lacks
from server.upstream.place import Operation, Reach

_CLAUDE = re.compile(r"claude", re.IGNORECASE)
_LOCATION = re.compile(r"[a-z][a-z0-9-]*")
"""A location is a part of the host, to which the token goes."""
_COMPLETE = re.compile(r".*/projects/[^/]+/locations/[^/]+")
_VERSION = re.compile(r"/v1(beta1)?$")
_DEFAULT_LOCATION = "us-central1"
_PUBLISHERS = (
    # How the name of a model begins, its publisher, and the manners of that publisher's own API.
    ("mistral", "mistralai", PROVIDERS["mistral"].manners),
    ("codestral", "mistralai", PROVIDERS["mistral"].manners),
    ("jamba", "ai21", Manners(Dialect.CHAT, stream_usage=False)),
)
_NO_PROJECT = (
    "its project at Vertex AI is unknown: set litellm_params.vertex_project, or VERTEXAI_PROJECT. (With a key of "
    "Google AI Studio, write the model as gemini/…)"
)
_NO_LIBRARY = "it needs google-auth: pip install 'pollux-responses[vertex]'"
_MESSAGES = Manners(Dialect.MESSAGES)
_ANTHROPIC_VERSION = MappingProxyType({"anthropic_version": "vertex-2023-10-16"})


def vertex(entry: ModelEntry, headers: Mapping[str, str], environ: Mapping[str, str], *, let_in: bool) -> Reach:
    """How a deployment of Vertex AI is reached; `let_in` says whether its headers hold a key already."""
    params = entry.litellm_params
    operation, manners = _operation(entry)
    project = params.vertex_project or setting(environ, "VERTEXAI_PROJECT")
    location = params.vertex_location or setting(environ, "VERTEXAI_LOCATION") or _DEFAULT_LOCATION
    base = params.api_base or setting(environ, "VERTEXAI_API_BASE")
    reached = Reach(manners, None, operation=operation, headers=headers)
    if not _LOCATION.fullmatch(location):
        return replace(reached, flaw=f"litellm_params.vertex_location '{location}' is no location of Google's")
    credential = STATIC
    if not let_in:
        try:
            credential, own = google_account(_stated(entry, environ), environ)
        except UnusableAccount as why:
            return replace(reached, flaw=str(why))
        project = project or own
    path = urlsplit(base).path.rstrip("/") if base else ""
    if found := _COMPLETE.match(path):
        place = found[0]
    elif project is None:
        return replace(reached, flaw=_NO_PROJECT)
    else:
        place = f"{_VERSION.sub('', path)}/v1/projects/{quote(project, safe='')}/locations/{location}"
    flaw = None if let_in or not lacks("google.auth", "requests") else _NO_LIBRARY
    return replace(reached, base_url=f"{_root(base, location)}{place}", credential=credential, flaw=flaw)


def _root(base: str | None, location: str) -> str:
    """The scheme and host: of the config, else Google's for that location."""
    if base:
        parts = urlsplit(base)
        return f"{parts.scheme}://{parts.netloc}"
    if location == "global":
        return "https://aiplatform.googleapis.com"
    # A geography, such as `us` or `eu`, is no region.
    return f"https://{f'{location}-aiplatform' if '-' in location else f'aiplatform.{location}.rep'}.googleapis.com"


def _operation(entry: ModelEntry) -> tuple[Operation, Manners]:
    model = entry.litellm_params.model.removeprefix("vertex_ai/").removeprefix("vertex_ai_beta/")
    api = entry.model_info.api
    if api == "messages" or (api is None and _CLAUDE.search(model)):
        made = _published("anthropic", model=None, adds=_ANTHROPIC_VERSION)
        return replace(made, counting_path="/publishers/anthropic/models/count-tokens:rawPredict"), _MESSAGES
    for start, publisher, manners in _PUBLISHERS:
        if model.startswith(start):
            return _published(publisher), manners
    # Models of others name their publisher.
    named = "{model}" if "/" in model else "google/{model}"
    manners = PROVIDERS["gemini"].manners if "gemini" in model else Manners(Dialect.CHAT)
    return Operation("/endpoints/openapi/chat/completions", model=named), manners


def _published(publisher: str, *, model: str | None = "{model}", adds: Mapping[str, str] | None = None) -> Operation:
    """The operation of a publisher's own API, which Google passes on as it is."""
    path = f"/publishers/{publisher}/models/{{model}}"
    return Operation(f"{path}:rawPredict", f"{path}:streamRawPredict", model, adds=adds or {})


def _stated(entry: ModelEntry, environ: Mapping[str, str]) -> str | Mapping[str, object] | None:
    stated = entry.litellm_params.vertex_credentials
    if isinstance(stated, SecretStr):
        return stated.get_secret_value()
    return stated or setting(environ, "VERTEXAI_CREDENTIALS")
