"""Ids on their way through: a provider's raw id never reaches a client, it would sidestep ownership.

Bytes stay bytes: an object is parsed to find its ids, and only these are replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from server.errors import PolluxError
from server.protocol.ids import CompositeId, encode_composite, owner_tag
from server.protocol.snapshot import fill_foreign
from server.protocol.sse import ServerEvent, encode_frame
from server.upstream.deployments import Deployment

SHORTEST_DISTINCT_ID = 8
"""A raw id shorter than this may occur in a message by chance, and is left there."""


@dataclass
class Rewriter:
    """Rewrites what one deployment answers to one owner."""

    deployment: Deployment
    owner: str
    secret: bytes
    public_ids: dict[str, str] = field(default_factory=dict)
    """Raw id → the id that the client knows. Given ones win over made ones."""
    fill_from: dict[str, Any] = field(default_factory=dict)
    """The request's body, for deployments with `fill_missing`."""

    def public(self, raw: str) -> str:
        """The composite id for a raw one."""
        known = self.public_ids.get(raw)
        if known is None:
            plain = CompositeId(self.deployment.provider, self.deployment.id, raw)
            tag = owner_tag(self.secret, self.owner, plain.untagged)
            known = encode_composite(CompositeId(plain.provider, plain.model_id, raw, tag))
            self.public_ids[raw] = known
        return known

    def json(self, raw: bytes) -> bytes:
        """A JSON answer."""
        return self._replace(raw, lambda body: body)

    def event(self, event: ServerEvent) -> bytes:
        """One event of a stream, as bytes; only those that carry a response, or an error, are looked into."""
        if b'"response"' not in event.data and b'"error"' not in event.data:
            return event.raw
        data = self._replace(event.data, lambda body: body.get("response"))
        data = self._in_text(data) if b'"error"' in data else data
        return event.raw if data == event.data else encode_frame(event.name or self.type_of(data), data)

    def error(self, error: PolluxError) -> PolluxError:
        """The same error, its message without raw ids."""
        error.message = self._in_text(error.message.encode()).decode()
        return error

    def _replace(self, raw: bytes, find: Callable[[dict[str, Any]], Any]) -> bytes:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return raw
        found = find(body) if isinstance(body, dict) else None
        if not isinstance(found, dict):
            return raw
        if self.deployment.fill_missing and found.get("object") == "response" and "status" in found:
            fill_foreign(found, self.fill_from)
            raw = orjson.dumps(body)
        for name in ("id", "previous_response_id"):
            value = found.get(name)
            # A list of items has an id-like key too, but is no response.
            if isinstance(value, str) and value and found.get("object") != "list":
                raw = raw.replace(orjson.dumps(value), orjson.dumps(self.public(value)))
        return raw

    def _in_text(self, text: bytes) -> bytes:
        for raw, public in self.public_ids.items():
            if len(raw) >= SHORTEST_DISTINCT_ID:
                text = text.replace(raw.encode(), public.encode())
        return text

    @staticmethod
    def type_of(data: bytes) -> str:
        """The type of an event whose upstream sends no `event:` line."""
        try:
            kind = orjson.loads(data).get("type")
        except (orjson.JSONDecodeError, AttributeError):
            return "message"
        return kind if isinstance(kind, str) else "message"
