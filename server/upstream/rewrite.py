"""Replaces a provider's raw ids by composite ids in answers. With raw ids, clients could evade the check of ownership.

An object is parsed to find its ids; then only the ids are replaced in its bytes, and all other bytes stay as they are.
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
    """Raw id → the id that the client knows. A new composite id is made only for a raw id that is not in here."""
    subject: str = ""
    """The client's id of the response that the answer is about; empty for a new response until its id has come.

    Once it is set, every id that an answer gives that response is replaced by this one, because LiteLLM as an upstream
    encrypts its ids anew for each answer.
    """
    previous: str = ""
    """The request's `previous_response_id`. Answers show this id, whichever one the provider sends."""
    opaque: bool = False
    """Whether new ids have the opaque form."""
    fill_from: dict[str, Any] = field(default_factory=dict)
    """The request's body, for deployments with `fill_missing`."""
    secrets: Secrets = NO_SECRETS
    """The secrets in the request's tools, which no answer may show."""
    only_known: bool = False
    """Whether only ids in `public_ids` are replaced, wherever they stand: what the answers hold is not known."""
    status: str = ""
    """The status of the response that was rewritten last."""
    newest: dict[str, Any] | None = None
    """The response object that was rewritten last."""
    is_json: bool = False
    """Whether the body that was rewritten last is a JSON object, whichever content type it has."""

    def public(self, raw: str) -> str:
        """The composite id for a raw one.

        Raises:
            UpstreamUnavailable: the id can't be part of a URL

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
        """A copy for one more answer about the same response. Ids that the copy learns are not added here."""
        return replace(self, public_ids=dict(self.public_ids), newest=None)

    def json(self, raw: bytes) -> bytes:
        """Rewrite a JSON answer.

        Raises:
            UpstreamUnavailable: it names a response by an id that no URL could carry

        """
        return self.secrets.hidden_in(self._json(raw))

    def _json(self, raw: bytes) -> bytes:
        raw = self.marker.mark(raw)
        found = parsed(raw)
        self.is_json = found is not None
        if self.only_known:
            return self._known_replaced(raw if found is None else found[1])
        if found is None:
            return self._unparsed(raw)
        body, raw = found
        status = body.get("status")
        self.status = status if isinstance(status, str) else ""
        try:
            return self._response(raw, body, body)
        except orjson.JSONEncodeError:  # it is nested too deeply to be written again
            return self._unparsed(raw)

    def event(self, event: ServerEvent) -> bytes:
        """Rewrite one event of a stream. Only events with a response or an error are parsed.

        Raises:
            UpstreamUnavailable: it names a response by an id that no URL could carry

        """
        if self.marker.needed:
            event = self.marker.event(event)
        if self.only_known:
            return self._known_replaced(event.raw)
        named = b'"response' in event.data or b'"error"' in event.data
        made = self._event(event) if named else event.raw
        return self.secrets.hidden_in(made) if self.secrets else made

    def _event(self, event: ServerEvent) -> bytes:
        found = parsed(event.data)
        if found is None:
            return self._unparsed(event.raw)
        try:
            data = self._parsed(*found)
        except orjson.JSONEncodeError:  # it is nested too deeply to be written again
            return self._unparsed(event.raw)
        if data == event.data:
            return event.raw
        # Line breaks can only be white space between tokens: inside strings JSON forbids them.
        return encode_frame(event.name or self.type_of(data), data.replace(b"\r", b" ").replace(b"\n", b" "))

    def _parsed(self, body: dict[str, Any], data: bytes) -> bytes:
        """Rewrite the data of an event."""
        response = body.get("response")
        if isinstance(named := body.get("response_id"), str) and named:
            data = put(data, body, body, "response_id", self._of_subject(named))
        if isinstance(response, dict):
            data = self._response(data, body, response)
        return self._messages(data, body, body)

    def error(self, error: PolluxError) -> PolluxError:
        """The same error, its message without raw ids."""
        error.message = self.secrets.hidden_in_text(self._in_text(error.message))
        return error

    def _response(self, raw: bytes, body: dict[str, Any], response: dict[str, Any]) -> bytes:
        self.newest = response
        if self.deployment.fill_missing and response.get("object") == "response" and "status" in response:
            fill_foreign(response, self.fill_from)
            raw = jsontext.dumps(body)
        if isinstance(tools := response.get("tools"), list) and (shown := shown_tools(tools)) != tools:
            response["tools"] = shown
            raw = jsontext.dumps(body)
        for name in ("id", "previous_response_id"):
            value = response.get(name)
            if name != "id" and self.previous and value is None and name in response:
                # The provider was told the turns before, so it knows of no previous response.
                response[name] = self.previous
                raw = jsontext.dumps(body)
            # A list of items can have such keys too, but it is not a response.
            if isinstance(value, str) and value and response.get("object") != "list":
                new = self._of_subject(value) if name == "id" else self.previous or self.public(value)
                raw = put(raw, body, response, name, new)
        return self._messages(raw, body, response)

    def _known_replaced(self, raw: bytes) -> bytes:
        for known, public in self.public_ids.items():
            if len(known) >= SHORTEST_DISTINCT:
                raw = raw.replace(known.encode(), public.encode())
        return raw

    def _of_subject(self, raw: str) -> str:
        """The client's id of the response that the answer is about; `raw` is the id that this answer gives it."""
        self.subject = self.subject or self.public(raw)
        self.public_ids[raw] = self.subject
        return self.subject

    def _unparsed(self, raw: bytes) -> bytes:
        """Rewrite a text that can't be parsed, such as a truncated one: replace what its key shows to be an id."""

        def replaced(match: re.Match[bytes]) -> bytes:
            key, found = match["key"], match["id"].decode("utf-8", "replace")
            # An `id` may belong to an item. The first one is always replaced, as most objects begin with their own id.
            if key == b"id" and not found.startswith(COMPOSITE_PREFIX) and match.start() != first:
                return match[0]
            certain = key != b"previous_response_id" and found.startswith(COMPOSITE_PREFIX)
            known = self._of_subject(found) if certain else self.public(found)
            return match["before"] + known.encode()

        found = _ID.search(raw)
        first = found.start() if found else -1
        return _ID.sub(replaced, raw)

    def _messages(self, raw: bytes, body: dict[str, Any], holder: dict[str, Any]) -> bytes:
        """Rewrite ids in the text of an error, which comes in one of three forms."""
        for place, name in ((holder.get("error"), "message"), (holder, "error"), (holder, "message")):
            if isinstance(place, dict) and isinstance(text := place.get(name), str):
                raw = put(raw, body, place, name, self._in_text(text))
        return raw

    def _in_text(self, text: str) -> str:
        # The longest first, because one id may be the beginning of another.
        for raw in sorted(self.public_ids, key=len, reverse=True):
            if len(raw) >= SHORTEST_DISTINCT:
                text = text.replace(raw, self.public_ids[raw])
        return text

    @staticmethod
    def type_of(data: bytes) -> str:
        """The type in an event's data, for events without an `event:` line."""
        try:
            kind = jsontext.mended(data)[0].get("type")
        except (orjson.JSONDecodeError, AttributeError):
            return "message"
        return kind if isinstance(kind, str) else "message"


_ID = re.compile(rb'(?P<before>"(?P<key>id|response_id|previous_response_id)"\s*:\s*")(?P<id>[^"\\\x00-\x20]+)')
