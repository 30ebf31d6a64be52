"""The table of all URLs that Pollux serves, as data: `router` serves it, metrics count by it, `openapi` tells of it."""

from __future__ import annotations

from server.api.operation import Operation
from server.api.routes.models import MODELS
from server.api.routes.pages import PAGES
from server.api.routes.probes import PROBES
from server.api.routes.responses import RESPONSES
from server.api.routes.watching import WATCHING
from server.api.routes.webhooks import WEBHOOKS

PREFIXES = ("/v1", "", "/openai/v1", "/openai", "/openai/deployments/{model:[^/]+}")
"""`/v1` is OpenAI's; the empty one suits clients whose base URL lacks it; the others are those of Azure's SDK.

Azure's query parameter `api-version` is ignored.
"""

ROUTES: tuple[Operation, ...] = (*RESPONSES, *WATCHING, *WEBHOOKS, *MODELS)
"""What is served under each of the prefixes."""

UNPREFIXED: tuple[Operation, ...] = (*PROBES, *PAGES)
"""What is served at its path alone."""

__all__ = ["PAGES", "PREFIXES", "PROBES", "ROUTES", "UNPREFIXED"]
