"""Ids on their way through: a provider's raw id never reaches a client, it would sidestep ownership.

Bytes stay bytes: an object is parsed to find its ids, and only these are replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from server.errors import PolluxError, UpstreamUnavailable
from server.protocol import jsontext
from server.protocol.ids import COMPOSITE_PREFIX, CompositeId, new_composite, owner_tag
from server.protocol.inplace import SHORTEST_DISTINCT, parsed, put
from server.protocol.redaction import NO_SECRETS, Secrets, shown_tools
from server.protocol.snapshot import fill_foreign
from server.protocol.sse import ServerEvent, encode_frame
from server.upstream.affinity import Marker
from server.upstream.deployments import Deployment


@dataclass
class Rewriter:
    """Rewrites what one deployment answers to one owner."""

    deployment: Deployment
    marker: Marker
    public_ids: dict[str, str] = field(default_factory=dict)
    """Raw id → the id that the client knows. Given ones win over made ones."""
    subject: str = ""
    """The id, as the client knows it, of the response that is answered about; empty until a new one has told its own.

    Whatever id an answer then gives that response, the client reads this one: LiteLLM as an upstream encrypts its ids
    anew for each answer.
    """
    previous: str = ""
    """The `previous_response_id` of the request that is answered: whatever the provider calls it, it is told so."""
    opaque: bool = False
    """The form of the ids that are made."""
    fill_from: dict[str, Any] = field(default_factory=dict)
    """The request's body, for deployments with `fill_missing`."""
    secrets: Secrets = NO_SECRETS
    """Those of the request's tools, which no answer may show."""
    status: str = ""
    """Of the response that was rewritten last."""
    is_json: bool = False
    """Whether what was rewritten last is a JSON object, whatever its label says."""

    def public(self, raw: str) -> str:
        """The composite id for a raw one.

        Raises:
            UpstreamUnavailable: no URL could carry it

        """
        known = self.public_ids.get(raw)
        if known is None:
            plain = CompositeId(self.deployment.provider, self.deployment.id, raw, opaque=self.opaque)
            known = new_composite(plain._replace(tag=owner_tag(self.marker.secret, self.marker.owner, plain.untagged)))
            if known is None:
                text = f"The provider named the response by an id that no URL can carry ({len(raw)} characters)."
                raise UpstreamUnavailable(f"{text} Nobody could ask for it again.", begun=True)
            self.public_ids[raw] = known
        return known

    def again(self) -> Rewriter:
        """The same for one more answer about the same response. What it learns is not remembered here."""
        return replace(self, public_ids=dict(self.public_ids))

    def json(self, raw: bytes) -> bytes:
        """A JSON answer.

        Raises:
            UpstreamUnavailable: it names a response by an id that no URL could carry

        """
        return self.secrets.hidden_in(self._json(raw))

    def _json(self, raw: bytes) -> bytes:
        found = parsed(self.marker.mark(raw))
        self.is_json = found is not None
        if found is None:
            return self._unparsed(raw)
        body, raw = found
        status = body.get("status")
        self.status = status if isinstance(status, str) else ""
        return self._response(raw, body, body)

    def event(self, event: ServerEvent) -> bytes:
        """One event of a stream, as bytes; only those that carry a response, or an error, are looked into.

        Raises:
            UpstreamUnavailable: it names a response by an id that no URL could carry

        """
        if self.marker.needed:
            event = self.marker.event(event)
        named = b'"response' in event.data or b'"error"' in event.data
        made = self._event(event) if named else event.raw
        return self.secrets.hidden_in(made) if self.secrets else made

    def _event(self, event: ServerEvent) -> bytes:
        found = parsed(event.data)
        if found is None:
            return self._unparsed(event.raw)
        (body, data), response = found, found[0].get("response")
        if isinstance(named := body.get("response_id"), str) and named:
            data = put(data, body, body, "response_id", self._of_subject(named))
        if isinstance(response, dict):
            data = self._response(data, body, response)
        data = self._messages(data, body, body)
        if data == event.data:
            return event.raw
        # Line breaks can only be white space between tokens: inside strings JSON forbids them.
        return encode_frame(event.name or self.type_of(data), data.replace(b"\r", b" ").replace(b"\n", b" "))

    def error(self, error: PolluxError) -> PolluxError:
        """The same error, its message without raw ids."""
        error.message = self.secrets.hidden_in_text(self._in_text(error.message))
        return error

    def _response(self, raw: bytes, body: dict[str, Any], response: dict[str, Any]) -> bytes:
        if self.deployment.fill_missing and response.get("object") == "response" and "status" in response:
            fill_foreign(response, self.fill_from)
            raw = jsontext.dumps(body)
        if isinstance(tools := response.get("tools"), list) and (shown := shown_tools(tools)) != tools:
            response["tools"] = shown
            raw = jsontext.dumps(body)
        for name in ("id", "previous_response_id"):
            value = response.get(name)
            # A list of items has an id-like key too, but is no response.
            if isinstance(value, str) and value and response.get("object") != "list":
                new = self._of_subject(value) if name == "id" else self.previous or self.public(value)
                raw = put(raw, body, response, name, new)
        return self._messages(raw, body, response)

    def _of_subject(self, raw: str) -> str:
        """The id of the response that is answered about, which this answer calls by this raw one."""
        self.subject = self.subject or self.public(raw)
        self.public_ids[raw] = self.subject
        return self.subject

    def _unparsed(self, raw: bytes) -> bytes:
        """A text that no parser takes (cut off, say): what by its key is a response's id is replaced all the same."""

        def replaced(match: re.Match[bytes]) -> bytes:
            key, found = match["key"], match["id"].decode("utf-8", "replace")
            # An `id` may be an item's. The first one is replaced in doubt: most objects begin with their own.
            if key == b"id" and not found.startswith(COMPOSITE_PREFIX) and match.start() != first:
                return match[0]
            certain = key != b"previous_response_id" and found.startswith(COMPOSITE_PREFIX)
            known = self._of_subject(found) if certain else self.public(found)
            return match["before"] + known.encode()

        found = _ID.search(raw)
        first = found.start() if found else -1
        return _ID.sub(replaced, raw)

    def _messages(self, raw: bytes, body: dict[str, Any], holder: dict[str, Any]) -> bytes:
        """The text of an error, in whichever of its three forms."""
        for place, name in ((holder.get("error"), "message"), (holder, "error"), (holder, "message")):
            if isinstance(place, dict) and isinstance(text := place.get(name), str):
                raw = put(raw, body, place, name, self._in_text(text))
        return raw

    def _in_text(self, text: str) -> str:
        # The longest first: one may be the beginning of another.
        for raw in sorted(self.public_ids, key=len, reverse=True):
            if len(raw) >= SHORTEST_DISTINCT:
                text = text.replace(raw, self.public_ids[raw])
        return text

    @staticmethod
    def type_of(data: bytes) -> str:
        """The type of an event whose upstream sends no `event:` line."""
        try:
            kind = jsontext.mended(data)[0].get("type")
        except (orjson.JSONDecodeError, AttributeError):
            return "message"
        return kind if isinstance(kind, str) else "message"


_ID = re.compile(rb'(?P<before>"(?P<key>id|response_id|previous_response_id)"\s*:\s*")(?P<id>[^"\\\x00-\x20]+)')
