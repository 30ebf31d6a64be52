"""Status events: one object for each change of a response's status, in the feed and in webhooks alike.

The object has the form of OpenAI's webhook events, as its SDKs unwrap them; what `data` holds besides the id is ours.
"""

from __future__ import annotations

import hashlib
from typing import Any

from server.protocol import jsontext
from server.protocol.lifecycle import Status

DELETED = "deleted"
"""What a feed tells of a response that was deleted. It is no status of a Response object."""
STATUSES = (*Status, DELETED)
KINDS = tuple(f"response.{status}" for status in STATUSES)
GAP = "feed.gap"
"""The event which says that events were dropped before this subscriber saw them."""
MOST_METADATA_BYTES = 64 * 1024
"""More than OpenAI allows (16 pairs of 64 and 512 characters). Larger metadata is not told in events."""


def kind_of(status: str) -> str:
    return f"response.{status}"


def status_of(kind: str) -> str:
    """The status that an event of this type tells."""
    return kind.removeprefix("response.")


def event_id(kind: str, subject: str) -> str:
    """The id of the event of this kind about this response. There is one such: a response takes each status once.

    Whoever tells of it computes the id anew: it is the same in the feed, in webhooks and in the log.
    """
    return f"evt_{hashlib.sha256(f'{kind} {subject}'.encode()).hexdigest()[:24]}"


def event_of(status: str, response_id: str) -> str:
    """The id of the event that a response took a status."""
    return event_id(kind_of(status), response_id)


def status_event(
    status: str, response_id: str, at_s: int, *, model: str | None, metadata: Any, owner: str | None = None
) -> dict[str, Any]:
    """The event; with its `owner` only for the master, who sees everybody's."""
    kind = kind_of(status)
    data = {"id": response_id, "status": status, "model": model, "metadata": metadata}
    if owner is not None:
        data["owner"] = owner
    return {"id": event_id(kind, response_id), "object": "event", "created_at": at_s, "type": kind, "data": data}


def gap_event(oldest: str, at_s: int) -> dict[str, Any]:
    """Events behind the subscriber's cursor are no longer kept; it goes on with those from `oldest` on."""
    data = {"oldest": oldest}
    return {"id": event_id(GAP, oldest), "object": "event", "created_at": at_s, "type": GAP, "data": data}


def stored_metadata(given: Any) -> bytes:
    """A request's metadata, as the store keeps it for events; empty where there is none."""
    if not isinstance(given, dict) or not given:
        return b""
    text = jsontext.dumps(given)
    return text if len(text) <= MOST_METADATA_BYTES else b"null"


def shown_metadata(stored: bytes) -> Any:
    """What events show of it."""
    try:
        return jsontext.loads(stored) if stored else {}
    except ValueError:
        return None  # somebody has broken it by hand


_RANKS = {str(Status.QUEUED): 0, str(Status.IN_PROGRESS): 1, DELETED: 3}
_ENDED = 2


def rank_of(status: str) -> int:
    """How far a response has come: it never goes back."""
    return _RANKS.get(status, _ENDED)


def has_ended(rank: int) -> bool:
    return rank >= _ENDED
