"""The bodies of requests that are read by their models. A validator here raises the refusal that the client gets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.models.base import Described
from server.api.query import MOST_IDS, checked_ids
from server.errors import InvalidType, InvalidValue, shown
from server.outbox.endpoints import STATUSES
from server.protocol.status_events import kind_of

EVENT_TYPES = [kind_of(status) for status in STATUSES]
LONGEST_NAME = 256

EventType = Literal["response.completed", "response.failed", "response.incomplete", "response.cancelled"]


def _name(given: Any) -> Any:
    # The store's scripts can't read halves of characters, and would pass over the endpoint.
    if isinstance(given, str) and (not 0 < len(given) <= LONGEST_NAME or any("\ud800" <= c <= "\udfff" for c in given)):
        raise InvalidValue(f"Invalid value for 'name': expected 1 to {LONGEST_NAME} characters.", param="name")
    return given


def _kind(given: Any) -> Any:
    if given not in EVENT_TYPES:
        expected = ", ".join(EVENT_TYPES)
        text = f"There are no events of type '{shown(str(given))}' here, but {expected}."
        raise InvalidValue(text, param="event_types")
    return given


def _kinds(given: Any) -> Any:
    if not isinstance(given, list) or not given:
        raise InvalidType("event_types", "an array of strings", given)
    return list(dict.fromkeys(map(_kind, given)))


Name = Annotated[str, BeforeValidator(_name), Field(min_length=1, max_length=LONGEST_NAME)]
Kinds = Annotated[list[EventType], BeforeValidator(_kinds), Field(min_length=1)]


class CancelResponses(Described):
    """The responses to cancel."""

    ids: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(checked_ids)] = Field(
        description="Their ids, each once.",
        min_length=1,
        max_length=MOST_IDS,
        json_schema_extra={"uniqueItems": True},
    )


class CreateWebhookEndpoint(Described):
    """A new endpoint."""

    name: Name = Field(description="What people call it.")
    url: str = Field(description="Where events are sent: by https, to a public address, unless the config allows more.")
    event_types: Kinds = Field(description="Of which ends it is told.")


class UpdateWebhookEndpoint(Described):
    """What to change. What is left out, or null, stays."""

    name: Name | None = Field(None, description="What people call it.")
    url: str | None = Field(None, description="Where events are sent.")
    event_types: Kinds | None = Field(None, description="Of which ends it is told.")


class RotateSecret(Described):
    """How the secret is replaced."""

    keep_old_secret_active_for_24_hours: bool | None = Field(
        None, description="Whether events are signed with both for a day, so that no receiver refuses one."
    )


class TestWebhookEndpoint(Described):
    """The sample to send."""

    __test__ = False  # of pytest's: this is no test

    event_type: Annotated[EventType, BeforeValidator(_kind)] = Field(description="Its type.")


class RedeliverEvent(Described):
    """The event to send once more."""

    event_id: str = Field(description="The id of an event that is among the last deliveries.")
