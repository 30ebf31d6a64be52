"""Affinity: a request with a value that only one account can use goes to that account (see `protocol.marks`).

Answers are marked only if the config has more than one account; with a single account no byte is changed. Marks in
requests are always read. If the deployment that a mark names is gone, the mark is removed, and the value is sent as the
provider made it: the account may still be reachable through another deployment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from server.keyring import MASTER
from server.protocol.inplace import parsed, put
from server.protocol.marks import HOLDERS, Marked, Place, marked, may_have_places, parse_marked, places
from server.protocol.sse import ServerEvent, encode_frame
from server.upstream.deployments import Deployment, Deployments


@dataclass(frozen=True)
class Marker:
    """Marks what one deployment answers to one owner."""

    deployment: str
    owner: str
    secret: bytes = field(repr=False)
    needed: bool = True

    def mark(self, raw: bytes) -> bytes:
        """The same JSON object with marks; what is no JSON object, or is nested too deeply, is returned unchanged."""
        if not self.needed or not may_have_places(raw):
            return raw
        found = parsed(raw)
        if found is None:
            return raw
        body, text = found
        try:
            for place in list(places(body)):
                text = put(text, body, *place, marked(place.value, self.deployment, self.owner, self.secret))
        except orjson.JSONEncodeError:
            return raw
        return text

    def event(self, event: ServerEvent) -> ServerEvent:
        """The same event of a stream with marks."""
        data = self.mark(event.data)
        if data is event.data:
            return event
        # Line breaks can only be white space between tokens: inside strings JSON forbids them.
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
        raw = encode_frame(event.name, data) if event.name else b"data: %b\n\n" % data
        return ServerEvent(event.name, data, raw)


class Affinity:
    """Finds the deployment that a request must go to because of its marked values, and removes the marks."""

    def __init__(self, deployments: Deployments, secrets: Sequence[bytes]) -> None:
        self._deployments = deployments
        self._secrets = secrets
        """New marks are made with the first secret; a mark is valid if any of them verifies it."""
        reachable = [deployment for deployment in deployments.all if deployment.unusable is None]
        self._needed = any(not other.same_account(reachable[0]) for other in reachable[1:])

    def marker(self, deployment: Deployment, owner: str) -> Marker:
        return Marker(deployment.id, owner, self._secrets[0], self._needed)

    def origin(self, body: dict[str, Any], owner: str) -> Deployment | None:
        """The deployment that a request must go to, if any.

        A conversation that moved when one account failed holds values of several accounts. Then a value that can't be
        left out takes precedence over reasoning, and reasoning over history; among equals the last one decides.
        """
        found = [(_weight(place), place) for place in places(body) if self._origin_of(place, owner)]
        if not found:
            return None
        heaviest = max(weight for weight, _ in found)
        return next(self._origin_of(place, owner) for weight, place in reversed(found) if weight == heaviest)

    def unmarked(self, body: dict[str, Any], deployment: Deployment, owner: str) -> dict[str, Any]:
        """The request for one deployment: without marks, and without reasoning that another account has encrypted.

        Other values of other accounts can't be left out. They are sent too, and the provider reports what it can't use.
        """
        sent = {name: _copied(value) if name in HOLDERS else value for name, value in body.items()}
        if isinstance(given := sent.get("input"), list):
            sent["input"] = [item for item in given if not self._is_unreadable(item, deployment, owner)]
        for place in places(sent):
            if genuine := self._genuine(place.value, owner):
                place.holder[place.key] = genuine.value
        return sent

    def _is_unreadable(self, item: Any, deployment: Deployment, owner: str) -> bool:
        for place in places({"item": item}):
            origin = self._origin_of(place, owner) if place.is_reasoning else None
            if origin is not None and not origin.same_account(deployment):
                return True
        return False

    def _origin_of(self, place: Place, owner: str) -> Deployment | None:
        genuine = self._genuine(place.value, owner)
        return self._deployments.get(genuine.deployment) if genuine else None

    def _genuine(self, text: str, owner: str) -> Marked | None:
        found = parse_marked(text)
        # The master key may use the values of all owners, as with ids.
        return found if found and (owner == MASTER or found.is_genuine(owner, self._secrets)) else None


def _weight(place: Place) -> int:
    if place.is_history:
        return 0
    return 1 if place.is_reasoning else 2


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value
